"""ReMaX-B with 200K iterations; COCO, crop 1281.

Paper:     arXiv 2306.17319, Tables 1 and 6
Train:     tools/dist_train.sh configs/remax/remax-b_r50_8xb8-200k_coco-1281.py 8
Hardware:  batch 64
Expected:  PQ 54.2 (the paper's, not measured by us)
"""
_base_ = './remax-b_r50_8xb8-50k_coco-1281.py'

train_cfg = dict(max_iters=200000)
optim_wrapper = dict(optimizer=dict(weight_decay=0.02))
param_scheduler = _base_.step_schedules['200k']
