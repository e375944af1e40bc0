# ADE20K panoptic, crop 1281, augmented as in deeplab2's configs of kMaX-DeepLab.
# The crop 641 is in ade20k_panoptic_641.py; a model's data_preprocessor.pad_size must be the same.
dataset_type = 'ADE20KPanopticMapDataset'
data_root = 'data/ADEChallengeData2016/'
backend_args = None

image_size = (1281, 1281)

load_steps = [
    dict(type='LoadImageStrict', backend_args=backend_args),
    dict(type='LoadPanopticMap', backend_args=backend_args),
]
crop_steps = [
    dict(type='ColorPolicy'),
    dict(type='RandomPad', size=image_size),
    dict(type='RandomCrop', crop_size=image_size),
    dict(type='RandomFlip', prob=0.5),
]
# The longer side becomes 1280 * scale + 1, with scales of 0.5 to 2 in steps of 0.1. A partner, whose
# segments are pasted, is resized, cropped and flipped by itself, at eight scales of 0.25 to 1.
train_pipeline = [
    *load_steps,
    dict(
        type='RandomChoiceResize',
        scales=[((image_size[0] - 1) * tenths // 10 + 1, ) * 2 for tenths in range(5, 21)],
        keep_ratio=True),
    *crop_steps,
    dict(
        type='PanopticCopyPaste',
        partner_pipeline=[
            *load_steps,
            dict(
                type='RandomChoiceResize',
                scales=[(int((image_size[0] - 1) * (0.25 + 0.75 * step / 7)) + 1, ) * 2 for step in range(8)],
                keep_ratio=True),
            *crop_steps,
        ]),
    dict(type='PackPanopticInputs'),
]
test_pipeline = [
    # By this name mmdet's DetInferencer finds the step that it replaces.
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadSegmentIds', backend_args=backend_args),
    dict(type='PackPanopticInputs'),
]
# `--tta` merges the predictions for the image and its mirror image; docs/test_time.md adds scales.
flips = [dict(type='RandomFlip', prob=0.), dict(type='RandomFlip', prob=1.)]
tta_model = dict(type='PanopticTTAModel')
tta_pipeline = [*test_pipeline[:-1], dict(type='TestTimeAug', transforms=[flips, test_pipeline[-1:]])]

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

val_evaluator = dict(type='PanopticQualityMetric', backend_args=backend_args)
test_evaluator = val_evaluator
