"""kMaX-DeepLab with ResNet-50 on COCO, crop 1281, 200K iterations.

Paper:     arXiv 2306.17319, whose longest schedule this is, for ReMaX
Train:     tools/dist_train.sh configs/kmax/kmax_r50_8xb8-200k_coco-1281.py 8
Hardware:  batch 64
Expected:  the paper gives no PQ for this schedule
"""
_base_ = './kmax_r50_8xb8-150k_coco-1281.py'

iterations = 200000
train_cfg = dict(max_iters=iterations)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 5000, by_epoch=False, begin=0, end=5000),
    dict(type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=0, end=iterations),
]
