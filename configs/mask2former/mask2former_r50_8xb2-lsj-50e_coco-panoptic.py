"""mmdet's Mask2Former with ResNet-50 on COCO panoptic, as in mmdet except for the ground truth.

It is loaded as index maps, not as stacks of masks, so neither training nor PQ needs panopticapi.

Paper:     arXiv 2112.01527
Train:     tools/dist_train.sh configs/mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py 8
Hardware:  8 GPUs, batch 16
Expected:  what mmdet's config of the same name gives; not trained by us
"""
_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py'
custom_imports = dict(imports=['remax_mm'], allow_failed_imports=False)

size = (1024, 1024)
fixed_size = dict(type='BatchFixedSizePad', size=size)
model = dict(
    data_preprocessor=dict(
        type='MaskFormerDataPreprocessor', pad_mask=False, pad_seg=False, batch_augments=[fixed_size]))
train_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True, backend_args=_base_.backend_args),
    dict(type='LoadPanopticMap', backend_args=_base_.backend_args),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=size, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=size, crop_type='absolute', allow_negative_crop=True),
    dict(type='PackPanopticInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=_base_.backend_args),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='LoadSegmentIds', backend_args=_base_.backend_args),
    dict(type='PackPanopticInputs')
]
train_dataloader = dict(dataset=dict(type='CocoPanopticMapDataset', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type='CocoPanopticMapDataset', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='PanopticQualityMetric', backend_args=_base_.backend_args), _base_.val_evaluator[1]
]
test_evaluator = val_evaluator
default_hooks = dict(visualization=dict(backend_args=_base_.backend_args))
