"""ReMaX-B with 150K iterations; COCO, crop 1281.

Paper:     arXiv 2306.17319, Figure 4
Train:     tools/dist_train.sh configs/remax/remax-b_r50_8xb8-150k_coco-1281.py 8
Hardware:  batch 64
Expected:  the paper gives no number (Figure 4 shows it above kMaX-DeepLab)
"""
_base_ = './remax-b_r50_8xb8-50k_coco-1281.py'

train_cfg = dict(max_iters=150000)
optim_wrapper = dict(optimizer=dict(weight_decay=0.02))
param_scheduler = _base_.step_schedules['150k']
