"""MaX-DeepLab-S on COCO, crop 1025.

Paper:     arXiv 2012.00759; PQ of google-research/deeplab2, g3doc/projects/max_deeplab.md
Train:     tools/dist_train.sh configs/max_deeplab/max-deeplab-s_8xb8-100k_coco-1025.py 8
Hardware:  batch 64
Expected:  PQ 47.9 (deeplab2's from ImageNet-1K weights, not measured by us), 61.9 M parameters at inference
"""
_base_ = './max-deeplab-s_8xb8-100k_coco-641.py'

image_size = (1025, 1025)
model = dict(data_preprocessor=dict(pad_size=image_size), test_cfg=dict(thing_area=256, stuff_area=4096))

train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(
        type='RandomChoiceResize',
        scales=[((image_size[0] - 1) * tenths // 10 + 1, ) * 2 for tenths in range(5, 16)],
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
tta_pipeline = [*test_pipeline[:-1], _base_.tta_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
