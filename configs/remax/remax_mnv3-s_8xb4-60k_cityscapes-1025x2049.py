"""ReMaX with MobileNetV3-Small; Cityscapes, crop 1025x2049.

Paper:     arXiv 2306.17319, Table 8; the decay of rate and weights is not stated, this is that of COCO
Train:     tools/dist_train.sh configs/remax/remax_mnv3-s_8xb4-60k_cityscapes-1025x2049.py 8
Hardware:  batch 32
Expected:  PQ 57.7 (the paper's, not measured by us); at inference the same network as its kMaX parent
"""
_base_ = ['../kmax/kmax_mnv3-s_8xb4-60k_cityscapes-1025x2049.py', '../_base_/relaxations/remax.py']

model = dict(panoptic_head=_base_.remax)
optim_wrapper = dict(optimizer=dict(lr=3e-3, weight_decay=0.005))
param_scheduler = _base_.step_schedules['60k']
