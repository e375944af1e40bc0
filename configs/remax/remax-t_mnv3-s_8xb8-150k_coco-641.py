"""ReMaX-T: MobileNetV3-Small with ReMask and ReClass; COCO, crop 641.

Paper:     arXiv 2306.17319, Tables 1 and 12; the schedule is not stated
Train:     tools/dist_train.sh configs/remax/remax-t_mnv3-s_8xb8-150k_coco-641.py 8
Hardware:  batch 64
Expected:  PQ 40.4 (the paper's, not measured by us); at inference the same network as its kMaX parent
"""
_base_ = ['../kmax/kmax_mnv3-s_8xb8-150k_coco-641.py', '../_base_/relaxations/remax.py']

model = dict(panoptic_head=_base_.remax)
optim_wrapper = dict(optimizer=dict(lr=6e-3, weight_decay=0.02))
param_scheduler = _base_.step_schedules['150k']
