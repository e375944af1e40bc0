"""ReMaX-M: ResNet-50 with one decoder layer per stride; COCO, crop 641.

Paper:     arXiv 2306.17319, Tables 1 and 12; the schedule is not stated
Train:     tools/dist_train.sh configs/remax/remax-m_r50_8xb8-150k_coco-641.py 8
Hardware:  batch 64
Expected:  PQ 49.1 (the paper's, not measured by us); at inference no more than kMaX-DeepLab with these layers
"""
_base_ = ['../kmax/kmax_r50_8xb8-150k_coco-641.py', '../_base_/relaxations/remax.py']

model = dict(panoptic_head=dict(_base_.remax, transformer_decoder=dict(num_layers=[1, 1, 1])))
optim_wrapper = dict(optimizer=dict(lr=6e-3, weight_decay=0.02))
param_scheduler = _base_.step_schedules['150k']
