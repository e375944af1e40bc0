# Cityscapes panoptic, crop 1025x2049, augmented as in deeplab2's configs of kMaX-DeepLab.
# A model's data_preprocessor.pad_size must be the same.
dataset_type = 'CityscapesPanopticMapDataset'
data_root = 'data/cityscapes/'
backend_args = None

image_size = (1025, 2049)  # height, width

load_steps = [
    dict(type='LoadImageStrict', backend_args=backend_args),
    dict(type='LoadPanopticMap', backend_args=backend_args),
]
crop_steps = [
    dict(type='ColorPolicy', magnitude_scale=0.2),
    dict(type='RandomPad', size=image_size[::-1]),
    dict(type='RandomCrop', crop_size=image_size[::-1]),
    dict(type='RandomFlip', prob=0.5),
]
# Scales of 0.5 to 2 in steps of 0.1. A partner, whose segments are pasted, is resized, cropped and flipped by
# itself, at eight scales of 0.25 to 1.
train_pipeline = [
    *load_steps,
    dict(
        type='RandomChoice',
        transforms=[[dict(type='Resize', scale_factor=tenths / 10)] for tenths in range(5, 21)]),
    *crop_steps,
    dict(
        type='PanopticCopyPaste',
        partner_pipeline=[
            *load_steps,
            dict(
                type='RandomChoice',
                transforms=[[dict(type='Resize', scale_factor=0.25 + 0.75 * step / 7)] for step in range(8)]),
            *crop_steps,
        ]),
    dict(type='PackPanopticInputs'),
]
# The preprocessor pads photos of 1024x2048 pixels to the crop.
test_pipeline = [
    # By this name mmdet's DetInferencer finds the step that it replaces.
    dict(type='LoadImageFromFile', backend_args=backend_args),
    dict(type='LoadSegmentIds', backend_args=backend_args),
    dict(type='PackPanopticInputs'),
]
# `--tta` merges the predictions for the image and its mirror image; docs/test_time.md adds scales.
flips = [dict(type='RandomFlip', prob=0.), dict(type='RandomFlip', prob=1.)]
tta_model = dict(type='PanopticTTAModel')
tta_pipeline = [*test_pipeline[:-1], dict(type='TestTimeAug', transforms=[flips, test_pipeline[-1:]])]

train_dataloader = dict(
    batch_size=4,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='gtFine/cityscapes_panoptic_train.json',
        data_prefix=dict(img='leftImg8bit/train/', seg='gtFine/cityscapes_panoptic_train/'),
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
        ann_file='gtFine/cityscapes_panoptic_val.json',
        data_prefix=dict(img='leftImg8bit/val/', seg='gtFine/cityscapes_panoptic_val/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args))
test_dataloader = val_dataloader

val_evaluator = dict(type='PanopticQualityMetric', backend_args=backend_args)
test_evaluator = val_evaluator
