"""kMaX-DeepLab with ReMaX's schedule: no relaxation, slots compete for each pixel by softmax.

Paper:     arXiv 2306.17319, Table 2, row 1
Train:     tools/dist_train.sh configs/ablations/table2_softmax_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  PQ 48.8 (the paper's, not measured by us)
"""
_base_ = './table2_sigmoid_r50_8xb8-50k_coco-1281.py'

model = dict(panoptic_head=dict(criterion=dict(loss_mask_id=dict(type='SoftmaxMaskIDLoss'))))
