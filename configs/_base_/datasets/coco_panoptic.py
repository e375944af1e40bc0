# COCO panoptic, crop 1281, augmented as in deeplab2's configs of kMaX-DeepLab.
# The crop 641 is in coco_panoptic_641.py; a model's data_preprocessor.pad_size must be the same.
dataset_type = 'CocoPanopticMapDataset'
data_root = 'data/coco/'
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
# The longer side becomes 1280 * scale + 1, with scales of 0.3 to 1.7 in steps of 0.1. A partner, whose
# segments are pasted, is resized, cropped and flipped by itself, at scales of 0.15 to 0.85.
train_pipeline = [
    *load_steps,
    dict(
        type='RandomChoiceResize',
        scales=[((image_size[0] - 1) * tenths // 10 + 1, ) * 2 for tenths in range(3, 18)],
        keep_ratio=True),
    *crop_steps,
    dict(
        type='PanopticCopyPaste',
        partner_pipeline=[
            *load_steps,
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
        ann_file='annotations/panoptic_train2017.json',
        data_prefix=dict(img='train2017/', seg='annotations/panoptic_train2017/'),
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
        ann_file='annotations/panoptic_val2017.json',
        data_prefix=dict(img='val2017/', seg='annotations/panoptic_val2017/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args))
test_dataloader = val_dataloader

val_evaluator = dict(type='PanopticQualityMetric', backend_args=backend_args)
test_evaluator = val_evaluator
