# ADE20K panoptic, crop 1281: scales of 0.5 to 2.0 in steps of 0.1 as in deeplab2's kMaX-DeepLab configs.
# The crop 641 is in ade20k_panoptic_641.py; a model's data_preprocessor.pad_size must be the same.
dataset_type = 'ADE20KPanopticMapDataset'
data_root = 'data/ADEChallengeData2016/'
backend_args = None

image_size = (1281, 1281)

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='LoadPanopticMap', backend_args=backend_args),
    # The longer side becomes 1280 * scale + 1.
    dict(
        type='RandomChoiceResize',
        scales=[((image_size[0] - 1) * tenths // 10 + 1, ) * 2 for tenths in range(5, 21)],
        keep_ratio=True),
    dict(type='RandomPad', size=image_size),
    dict(type='RandomCrop', crop_size=image_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackPanopticInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    # After the resize, so that the ground truth keeps its size.
    dict(type='LoadPanopticMap', backend_args=backend_args),
    dict(type='PackPanopticInputs')
]

train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='ade20k_panoptic_train.json',
        data_prefix=dict(img='images/training/', seg='ade20k_panoptic_train/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
        backend_args=backend_args))
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='ade20k_panoptic_val.json',
        data_prefix=dict(img='images/validation/', seg='ade20k_panoptic_val/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args))
test_dataloader = val_dataloader

val_evaluator = dict(type='PanopticQualityMetric')
test_evaluator = val_evaluator
