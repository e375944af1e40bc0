"""ReMaX with ResNet-50; ADE20K, crop 641.

Paper:     arXiv 2306.17319, Table 10; settings of COCO, by its Sec. 4.4
Train:     tools/dist_train.sh configs/remax/remax_r50_8xb8-100k_ade20k-641.py 8
Hardware:  batch 64
Expected:  PQ 41.9, mIoU 45.7 (the paper's, not measured by us); at inference as its kMaX parent
"""
_base_ = ['../kmax/kmax_r50_8xb8-100k_ade20k-641.py', '../_base_/relaxations/remax.py']

model = dict(panoptic_head=_base_.remax)
optim_wrapper = dict(optimizer=dict(lr=6e-3, weight_decay=0.005))
param_scheduler = _base_.step_schedules['100k']
