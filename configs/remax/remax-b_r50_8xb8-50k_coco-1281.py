"""ReMaX-B: kMaX-DeepLab with ResNet-50, ReMask on its first four decoder layers, ReClass; COCO, crop 1281.

Paper:     arXiv 2306.17319, Tables 2 to 4 (50K iterations, 27 epochs)
Train:     tools/dist_train.sh configs/remax/remax-b_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  PQ 52.4 (the paper's, not measured by us); at inference the same network as its kMaX parent
"""
_base_ = ['../kmax/kmax_r50_8xb8-150k_coco-1281.py', '../_base_/relaxations/remax.py']

model = dict(panoptic_head=_base_.remax)
train_cfg = dict(max_iters=50000)
optim_wrapper = dict(optimizer=dict(lr=6e-3, weight_decay=0.005))
param_scheduler = _base_.step_schedules['50k']
