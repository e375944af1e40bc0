"""kMaX-DeepLab on the mini dataset as a new-style config.

It is the same as configs/mini/kmax_mnv3-s_1xb8-1k_mini-129.py, but classes are imported instead of named, so
that an editor finds them and completes their names.

Data:      python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
Train:     python tools/train.py remax_mm/configs/kmax_mnv3_s_1xb8_1k_mini_129.py
Hardware:  2 CPU cores
"""
from mmcv.transforms import LoadImageFromFile, RandomChoiceResize, TestTimeAug
from mmdet.datasets.transforms import RandomCrop, RandomFlip, Resize
from mmdet.engine.hooks import DetVisualizationHook
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import DistSamplerSeedHook, IterTimerHook, LoggerHook, ParamSchedulerHook
from mmengine.optim import LinearLR, MultiStepLR, OptimWrapper
from mmengine.runner import LogProcessor, TestLoop, ValLoop
from mmengine.visualization import LocalVisBackend
from torch.optim import AdamW

from remax_mm.datasets import MiniPanopticMapDataset
from remax_mm.datasets.transforms import LoadPanopticMap, LoadSegmentIds, PackPanopticInputs, RandomPad
from remax_mm.engine import (BackgroundRuntimeInfoHook, CheckClassesHook, CheckLoadFromHook, FrozenRankHook,
                             KernelDecayOptimWrapperConstructor, ResumableTrainLoop, SafeCheckpointHook,
                             StopOnSignalHook, WorkDirLockHook)
from remax_mm.evaluation import PanopticQualityMetric
from remax_mm.models.backbones import KMaXMobileNetV3
from remax_mm.models.data_preprocessors import PanopticDataPreprocessor
from remax_mm.models.detectors import MaskTransformer
from remax_mm.models.heads import ASPPSemanticHead, KMaXFusionHead, KMaXHead
from remax_mm.models.losses import (InstanceDiscriminationLoss, PanopticCriterion, PQClassLoss, PQMaskLoss,
                                    SemanticLoss, SoftmaxMaskIDLoss)
from remax_mm.models.pixel_decoders import KMaXPixelDecoder
from remax_mm.models.task_modules import PQSimilarityAssigner
from remax_mm.models.test_time_augs import PanopticTTAModel
from remax_mm.models.transformer_decoders import KMaXTransformerDecoder
from remax_mm.visualization import PanopticVisualizer

default_scope = 'mmdet'
image_size = (129, 129)
iterations = 1000

# ---- model

norm_cfg = dict(type='BN', eps=1e-3, momentum=0.05)
model = dict(
    type=MaskTransformer,
    data_preprocessor=dict(type=PanopticDataPreprocessor, pad_size=image_size),
    channels_last=True,
    recompute_activations=False,
    backbone=dict(type=KMaXMobileNetV3, arch='small', norm_cfg=norm_cfg),
    panoptic_head=dict(
        type=KMaXHead,
        num_things_classes=7,
        num_stuff_classes=5,
        in_channels=[16, 88, 144, 576],
        norm_cfg=norm_cfg,
        pixel_decoder=dict(
            type=KMaXPixelDecoder,
            channels=[64, 32, 16, 16],
            num_blocks=[1, 1, 1, 1],
            block_types=['axial', 'axial', 'bottleneck', 'bottleneck']),
        transformer_decoder=dict(
            type=KMaXTransformerDecoder,
            num_slots=24,
            num_layers=[1, 1, 1],
            channels=128,
            ffn_channels=512,
            embedding_channels=64,
            drop_path_rate=0.0),
        semantic_head=dict(type=ASPPSemanticHead, aspp_channels=64),
        criterion=dict(
            type=PanopticCriterion,
            assigner=dict(type=PQSimilarityAssigner),
            loss_cls=dict(type=PQClassLoss, loss_weight=3.0),
            loss_dice=dict(type=PQMaskLoss, loss_weight=3.0),
            loss_mask_id=dict(type=SoftmaxMaskIDLoss, loss_weight=0.3),
            loss_insdis=dict(type=InstanceDiscriminationLoss, num_samples=256, sampling_temperature=1.5),
            loss_sem=dict(type=SemanticLoss, num_samples=0, sampling_temperature=2.0))),
    panoptic_fusion_head=dict(type=KMaXFusionHead),
    test_cfg=dict(
        panoptic_on=True,
        instance_on=False,
        semantic_on=False,
        thing_threshold=0.7,
        stuff_threshold=0.5,
        pixel_threshold=0.4,
        overlap_threshold=0.8,
        class_order_weight=1.0,
        mask_order_weight=1.0,
        thing_area=0,
        stuff_area=0))

# ---- data

backend_args = None
train_pipeline = [
    dict(type=LoadImageFromFile, backend_args=backend_args),
    dict(type=LoadPanopticMap, backend_args=backend_args),
    dict(
        type=RandomChoiceResize,
        scales=[((image_size[0] - 1) * tenths // 10 + 1, ) * 2 for tenths in range(8, 14)],
        keep_ratio=True),
    dict(type=RandomPad, size=image_size),
    dict(type=RandomCrop, crop_size=image_size),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PackPanopticInputs)
]
test_pipeline = [
    dict(type=LoadImageFromFile, backend_args=backend_args),
    dict(type=Resize, scale=image_size, keep_ratio=True),
    dict(type=LoadSegmentIds, backend_args=backend_args),
    dict(type=PackPanopticInputs)
]
flips = [dict(type=RandomFlip, prob=0.), dict(type=RandomFlip, prob=1.)]
tta_model = dict(type=PanopticTTAModel)
tta_pipeline = [*test_pipeline[:-1], dict(type=TestTimeAug, transforms=[flips, test_pipeline[-1:]])]

data_root = 'data/mini_panoptic/'
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type=InfiniteSampler, shuffle=True),
    dataset=dict(
        type=MiniPanopticMapDataset,
        data_root=data_root,
        ann_file='annotations/panoptic_train.json',
        data_prefix=dict(img='images/train/', seg='annotations/panoptic_train/'),
        pipeline=train_pipeline,
        backend_args=backend_args))
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    drop_last=False,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=MiniPanopticMapDataset,
        data_root=data_root,
        ann_file='annotations/panoptic_val.json',
        data_prefix=dict(img='images/val/', seg='annotations/panoptic_val/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args))
test_dataloader = val_dataloader
val_evaluator = dict(type=PanopticQualityMetric, backend_args=backend_args)
test_evaluator = val_evaluator

# ---- schedule

train_cfg = dict(type=ResumableTrainLoop, max_iters=iterations, val_interval=iterations)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=4e-3, eps=1e-7, weight_decay=0.005, fused=True),
    constructor=KernelDecayOptimWrapperConstructor)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type=MultiStepLR,
        by_epoch=False,
        milestones=[iterations * 85 // 100, iterations * 95 // 100],
        gamma=0.1),
]

# ---- runtime, see configs/_base_/default_runtime.py

default_hooks = dict(
    runtime_info=dict(type=BackgroundRuntimeInfoHook),
    timer=dict(type=IterTimerHook),
    logger=dict(type=LoggerHook, interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type=ParamSchedulerHook),
    checkpoint=dict(
        type=SafeCheckpointHook,
        by_epoch=False,
        interval=5000,
        save_last=True,
        max_keep_ckpts=3,
        save_best='coco_panoptic/PQ',
        rule='greater'),
    sampler_seed=dict(type=DistSamplerSeedHook),
    check_classes=dict(type=CheckClassesHook),
    check_load_from=dict(type=CheckLoadFromHook),
    work_dir_lock=dict(type=WorkDirLockHook),
    stop_on_signal=dict(type=StopOnSignalHook),
    frozen_rank=dict(type=FrozenRankHook),
    visualization=dict(type=DetVisualizationHook, backend_args=None))
log_processor = dict(type=LogProcessor, window_size=50, by_epoch=False)
log_level = 'INFO'
visualizer = dict(
    type=PanopticVisualizer, name='visualizer', alpha=0.6, vis_backends=[dict(type=LocalVisBackend)])
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl', timeout=1800))
sync_bn = 'torch'
load_from = None
resume = False
