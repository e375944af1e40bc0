"""kMaX-DeepLab with ResNet-50 on COCO, crop 1281, 50K iterations.

Paper:     arXiv 2306.17319, Table 2 and Figure 4
Train:     tools/dist_train.sh configs/kmax/kmax_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  PQ 48.8 (the paper's, not measured by us; it does not say at which learning rate)
"""
_base_ = './kmax_r50_8xb8-150k_coco-1281.py'

iterations = 50000
train_cfg = dict(max_iters=iterations)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 5000, by_epoch=False, begin=0, end=5000),
    dict(type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=0, end=iterations),
]
