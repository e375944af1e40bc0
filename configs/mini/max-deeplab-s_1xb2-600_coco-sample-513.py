"""MaX-DeepLab-S, narrow, fitted to two COCO photos from scratch, crop 353x513: checks the whole chain.

Data:      a folder with two val2017 photos and their annotations in COCO's layout, named by COCO_SAMPLE
Train:     COCO_SAMPLE=<folder> python tools/train.py configs/mini/max-deeplab-s_1xb2-600_coco-sample-513.py
Hardware:  2 CPU cores
"""
_base_ = '../max_deeplab/max-deeplab-s_8xb8-100k_coco-641.py'

norm_cfg = dict(type='BN', eps=1e-3, momentum=0.1)  # always the same two images
model = dict(
    data_preprocessor=dict(pad_size=(353, 513)),
    backbone=dict(
        channels=[32, 48, 96, 192],
        stem_channels=[32, 32, 64],
        num_slots=48,
        drop_path_rate=0.0,
        norm_cfg=norm_cfg),
    panoptic_head=dict(
        in_channels=128, norm_cfg=norm_cfg, semantic_head=dict(in_channels=[128, 192, 384, 768])),
    test_cfg=dict(thing_area=0, stuff_area=0))

resize = dict(type='Resize', scale=(513, 353), keep_ratio=True)
load, ids, pack = (_base_.test_pipeline[step] for step in (0, 2, 3))
tta_pipeline = [load, resize, ids, _base_.tta_pipeline[-1]]
index = _base_.train_pipeline[1]
dataset = dict(data_root='{{$COCO_SAMPLE:data/coco_sample}}', ann_file='annotations/panoptic_val2017.json')
dataset.update(data_prefix=_base_.val_dataloader.dataset.data_prefix)
train_dataloader = dict(
    batch_size=2, num_workers=1, dataset=dict(pipeline=[load, index, resize, pack], **dataset))
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=[load, resize, ids, pack], **dataset))
test_dataloader = val_dataloader

train_cfg = dict(max_iters=600, val_interval=100)
optim_wrapper = dict(optimizer=dict(lr=3e-3), paramwise_cfg=dict(_delete_=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='MultiStepLR', by_epoch=False, milestones=[510, 570], gamma=0.1),
]
