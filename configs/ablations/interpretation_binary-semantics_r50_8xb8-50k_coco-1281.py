"""ReMaX-B with the stages' semantic heads trained by binary cross entropy, whose level fits Eq. 1's sigmoid.

Paper:     arXiv 2306.17319, Sec. 3.1 does not give the semantic loss
Train:     tools/dist_train.sh configs/ablations/interpretation_binary-semantics_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  the paper gives no number
"""
_base_ = '../remax/remax-b_r50_8xb8-50k_coco-1281.py'

model = dict(panoptic_head=dict(criterion=dict(loss_stage_sem=dict(type='BinarySemanticLoss'))))
