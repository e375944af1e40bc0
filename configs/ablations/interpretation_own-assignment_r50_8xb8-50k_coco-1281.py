"""ReMaX-B whose relaxed masks reach the losses only; pixels are assigned to slots by masks as predicted.

Paper:     arXiv 2306.17319, Sec. 3.1 does not say which masks assign the pixels
Train:     tools/dist_train.sh configs/ablations/interpretation_own-assignment_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  the paper gives no number
"""
_base_ = '../remax/remax-b_r50_8xb8-50k_coco-1281.py'

model = dict(panoptic_head=dict(transformer_decoder=dict(relax_assignment=False)))
