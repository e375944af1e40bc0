# COCO panoptic, crop 641. A copy of this file, with its numbers changed, is all that another crop needs.
_base_ = './coco_panoptic.py'

image_size = (641, 641)

crop_steps = [
    dict(type='ColorPolicy'),
    dict(type='RandomPad', size=image_size),
    dict(type='RandomCrop', crop_size=image_size),
    dict(type='RandomFlip', prob=0.5),
]
train_pipeline = [
    *_base_.load_steps,
    dict(
        type='RandomChoiceResize',
        scales=[((image_size[0] - 1) * tenths // 10 + 1, ) * 2 for tenths in range(3, 18)],
        keep_ratio=True),
    *crop_steps,
    dict(
        type='PanopticCopyPaste',
        partner_pipeline=[
            *_base_.load_steps,
            dict(
                type='RandomChoiceResize',
                scales=[((image_size[0] - 1) * hundredths // 100 + 1, ) * 2
                        for hundredths in range(15, 86, 10)],
                keep_ratio=True),
            *crop_steps,
        ]),
    dict(type='PackPanopticInputs'),
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='Resize', scale=image_size, keep_ratio=True),
    *_base_.test_pipeline[2:],
]
tta_pipeline = [*test_pipeline[:-1], _base_.tta_pipeline[-1]]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
