"""ReMaX with softmax for sigmoid: in the mask-ID loss and wherever the relaxations activate logits.

Paper:     arXiv 2306.17319, Table 2, row 2
Train:     tools/dist_train.sh configs/ablations/table2_softmax-remax_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  PQ 49.5 (the paper's, not measured by us)
"""
_base_ = '../remax/remax-b_r50_8xb8-50k_coco-1281.py'

model = dict(
    panoptic_head=dict(
        remask=dict(activation='softmax'),
        criterion=dict(loss_mask_id=dict(type='SoftmaxMaskIDLoss'), reclass=dict(activation='softmax'))))
