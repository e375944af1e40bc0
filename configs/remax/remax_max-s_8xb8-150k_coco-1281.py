"""ReMaX with MaX-S; COCO, crop 1281.

Paper:     arXiv 2306.17319, which has MaX-S on Cityscapes only (Table 9)
Train:     tools/dist_train.sh configs/remax/remax_max-s_8xb8-150k_coco-1281.py 8
Hardware:  batch 64
Expected:  the paper gives no PQ on COCO; at inference the same network as its kMaX parent
"""
_base_ = ['../kmax/kmax_max-s_8xb8-150k_coco-1281.py', '../_base_/relaxations/remax.py']

model = dict(panoptic_head=_base_.remax)
optim_wrapper = dict(optimizer=dict(lr=6e-3, weight_decay=0.02))
param_scheduler = _base_.step_schedules['150k']
