"""MaX-DeepLab-S on COCO, crop 641.

Paper:     arXiv 2012.00759; PQ of google-research/deeplab2, g3doc/projects/max_deeplab.md
Train:     tools/dist_train.sh configs/max_deeplab/max-deeplab-s_8xb8-100k_coco-641.py 8
Hardware:  batch 64
Expected:  PQ 45.9 (deeplab2's from ImageNet-1K weights, not measured by us), 61.9 M parameters at inference
"""
_base_ = [
    '../_base_/models/max_deeplab_s.py', '../_base_/datasets/coco_panoptic_641.py',
    '../_base_/schedules/adamw_poly.py', '../_base_/default_runtime.py'
]

# Scales of 0.5 to 1.5 in steps of 0.1 and nothing else, as in deeplab2's configs.
image_size = (641, 641)
train_pipeline = [
    *_base_.load_steps,
    dict(
        type='RandomChoiceResize',
        scales=[((image_size[0] - 1) * tenths // 10 + 1, ) * 2 for tenths in range(5, 16)],
        keep_ratio=True),
    dict(type='RandomPad', size=image_size),
    dict(type='RandomCrop', crop_size=image_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackPanopticInputs')
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# What ImageNet pretrains learns a tenth as fast; the memory, its layers and the decoder do not.
optim_wrapper = dict(
    optimizer=dict(type='Adam', lr=1e-3, weight_decay=0.0),
    paramwise_cfg=dict(lr_mult={
        '_delete_': True,
        'backbone.stem': 0.1,
        'backbone.stages': 0.1
    }))

iterations = 100000
train_cfg = dict(max_iters=iterations)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 5000, by_epoch=False, begin=0, end=5000),
    dict(type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=0, end=iterations),
]
