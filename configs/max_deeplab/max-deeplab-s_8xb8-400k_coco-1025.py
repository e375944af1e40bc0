"""MaX-DeepLab-S on COCO, crop 1025.

Paper:     arXiv 2012.00759; PQ of google-research/deeplab2, g3doc/projects/max_deeplab.md
Train:     tools/dist_train.sh configs/max_deeplab/max-deeplab-s_8xb8-400k_coco-1025.py 8
Hardware:  batch 64
Expected:  PQ 49.0 (deeplab2's from ImageNet-1K weights, not measured by us), 61.9 M parameters at inference
"""
_base_ = './max-deeplab-s_8xb8-100k_coco-1025.py'

iterations = 400000
train_cfg = dict(max_iters=iterations)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 5000, by_epoch=False, begin=0, end=5000),
    dict(type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=0, end=iterations),
]
