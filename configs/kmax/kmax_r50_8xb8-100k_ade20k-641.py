"""kMaX-DeepLab with ResNet-50 on ADE20K, crop 641.

Paper:     arXiv 2207.04044; numbers of arXiv 2306.17319, Table 10
Train:     tools/dist_train.sh configs/kmax/kmax_r50_8xb8-100k_ade20k-641.py 8
Hardware:  batch 64
Expected:  PQ 41.5, mIoU 45.0 (the paper's, not measured by us), 56.6 M parameters at inference
"""
_base_ = [
    '../_base_/models/kmax_r50_ade20k.py', '../_base_/datasets/ade20k_panoptic_641.py',
    '../_base_/schedules/adamw_poly.py', '../_base_/default_runtime.py'
]

# A quarter of the samples for a quarter of the pixels, as in deeplab2.
model = dict(
    data_preprocessor=dict(pad_size=(641, 641)),
    panoptic_head=dict(criterion=dict(loss_insdis=dict(num_samples=1024), loss_sem=dict(num_samples=1024))))

iterations = 100000
train_cfg = dict(max_iters=iterations)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 5000, by_epoch=False, begin=0, end=5000),
    dict(type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=0, end=iterations),
]
