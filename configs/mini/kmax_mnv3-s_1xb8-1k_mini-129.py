"""kMaX-DeepLab with MobileNetV3-Small from scratch on the drawn mini set, crop 129: minutes on a CPU.

Data:      python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
Train:     python tools/train.py configs/mini/kmax_mnv3-s_1xb8-1k_mini-129.py
Hardware:  2 CPU cores
"""
_base_ = [
    '../_base_/models/kmax_r50.py', '../_base_/datasets/mini_panoptic.py', '../_base_/default_runtime.py'
]

norm_cfg = dict(type='BN', eps=1e-3, momentum=0.05)  # a run this short needs statistics that follow faster

model = dict(
    data_preprocessor=dict(pad_size=(129, 129)),
    recompute_activations=False,  # these images are so small that time matters more
    backbone=dict(_delete_=True, type='KMaXMobileNetV3', arch='small', norm_cfg=norm_cfg),
    panoptic_head=dict(
        num_things_classes=7,
        num_stuff_classes=5,
        in_channels=[16, 88, 144, 576],
        norm_cfg=norm_cfg,
        pixel_decoder=dict(channels=[64, 32, 16, 16], num_blocks=[1, 1, 1, 1]),
        transformer_decoder=dict(
            num_slots=24,
            num_layers=[1, 1, 1],
            channels=128,
            ffn_channels=512,
            embedding_channels=64,
            drop_path_rate=0.0),
        semantic_head=dict(aspp_channels=64),
        criterion=dict(loss_insdis=dict(num_samples=256), loss_sem=dict(num_samples=0))))

iterations = 1000
train_cfg = dict(type='ResumableTrainLoop', max_iters=iterations, val_interval=iterations)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-3, eps=1e-7, weight_decay=0.005, fused=True),
    constructor='KernelDecayOptimWrapperConstructor')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        milestones=[iterations * 85 // 100, iterations * 95 // 100],
        gamma=0.1),
]
