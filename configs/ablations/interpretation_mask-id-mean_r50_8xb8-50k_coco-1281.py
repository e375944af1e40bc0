"""ReMaX-B with the sigmoid mask-ID loss averaged over the slots, not summed.

Paper:     arXiv 2306.17319, which gives no formula of the loss
Train:     tools/dist_train.sh configs/ablations/interpretation_mask-id-mean_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  the paper gives no number
"""
_base_ = '../remax/remax-b_r50_8xb8-50k_coco-1281.py'

model = dict(panoptic_head=dict(criterion=dict(loss_mask_id=dict(slot_reduction='mean'))))
