"""ReMaX-B with 100K iterations; COCO, crop 1281.

Paper:     arXiv 2306.17319, Figure 4
Train:     tools/dist_train.sh configs/remax/remax-b_r50_8xb8-100k_coco-1281.py 8
Hardware:  batch 64
Expected:  the paper gives no number (Figure 4 shows it above kMaX-DeepLab)
"""
_base_ = './remax-b_r50_8xb8-50k_coco-1281.py'

iterations = 100000
train_cfg = dict(max_iters=iterations)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 5000, by_epoch=False, begin=0, end=5000),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        milestones=[iterations * 85 // 100, iterations * 95 // 100],
        gamma=0.1),
]
