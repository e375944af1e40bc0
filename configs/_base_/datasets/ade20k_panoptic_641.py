# ADE20K panoptic, crop 641.
_base_ = './ade20k_panoptic.py'

image_size = (641, 641)

train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(
        type='RandomChoiceResize',
        scales=[((image_size[0] - 1) * tenths // 10 + 1, ) * 2 for tenths in range(5, 21)],
        keep_ratio=True),
    dict(type='RandomPad', size=image_size),
    dict(type='RandomCrop', crop_size=image_size),
    *_base_.train_pipeline[-2:],
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='Resize', scale=image_size, keep_ratio=True),
    *_base_.test_pipeline[2:],
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
