"""kMaX-DeepLab with ResNet-50 on Cityscapes, crop 1025x2049, masks at stride 2.

Paper:     arXiv 2207.04044; numbers of arXiv 2306.17319, Table 8
Train:     tools/dist_train.sh configs/kmax/kmax_r50_8xb4-60k_cityscapes-1025x2049.py 8
Hardware:  batch 32
Expected:  PQ 64.3 (the paper's, not measured by us), 56.4 M parameters at inference
"""
_base_ = [
    '../_base_/models/kmax_r50_cityscapes.py', '../_base_/datasets/cityscapes_panoptic.py',
    '../_base_/schedules/adamw_poly.py', '../_base_/default_runtime.py'
]

iterations = 60000
train_cfg = dict(max_iters=iterations)
optim_wrapper = dict(optimizer=dict(lr=3e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 5000, by_epoch=False, begin=0, end=5000),
    dict(type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=0, end=iterations),
]
auto_scale_lr = dict(base_batch_size=32)
