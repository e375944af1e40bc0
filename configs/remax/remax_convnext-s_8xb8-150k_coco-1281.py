"""ReMaX with ConvNeXt-S; COCO, crop 1281.

Paper:     arXiv 2306.17319, Table 11; the schedule is not stated
Train:     tools/dist_train.sh configs/remax/remax_convnext-s_8xb8-150k_coco-1281.py 8
Hardware:  batch 64
Expected:  PQ 56.6 (the paper's, not measured by us); at inference the same network as its kMaX parent
"""
_base_ = ['../kmax/kmax_convnext-s_8xb8-150k_coco-1281.py', '../_base_/relaxations/remax.py']

model = dict(panoptic_head=_base_.remax)
optim_wrapper = dict(optimizer=dict(lr=6e-3, weight_decay=0.02))
param_scheduler = _base_.step_schedules['150k']
