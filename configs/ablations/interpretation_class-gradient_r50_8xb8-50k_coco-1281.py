"""ReMaX-B whose panoptic losses reach the class logits through ReMask, as the text literally allows.

Paper:     arXiv 2306.17319, Sec. 3.1: only the semantic logits are said to be detached
Train:     tools/dist_train.sh configs/ablations/interpretation_class-gradient_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  the paper gives no number
"""
_base_ = '../remax/remax-b_r50_8xb8-50k_coco-1281.py'

model = dict(panoptic_head=dict(remask=dict(detach_class=False)))
