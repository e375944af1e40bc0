"""kMaX-DeepLab with ResNet-50 on COCO, crop 1281, 100K iterations.

Paper:     arXiv 2306.17319, Figure 4
Train:     tools/dist_train.sh configs/kmax/kmax_r50_8xb8-100k_coco-1281.py 8
Hardware:  batch 64
Expected:  below PQ 52.4, that of ReMaX-B at 50K (Sec. 4; the paper gives no number)
"""
_base_ = './kmax_r50_8xb8-150k_coco-1281.py'

iterations = 100000
train_cfg = dict(max_iters=iterations)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 5000, by_epoch=False, begin=0, end=5000),
    dict(type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=0, end=iterations),
]
