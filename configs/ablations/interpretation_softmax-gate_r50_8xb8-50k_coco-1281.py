"""ReMaX-B whose classes and semantics are a softmax in Eq. 1, as in their own losses, instead of a sigmoid.

Paper:     arXiv 2306.17319, Eq. 1 has a sigmoid; the class loss is a softmax and does not train its level
Train:     tools/dist_train.sh configs/ablations/interpretation_softmax-gate_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  the paper gives no number
"""
_base_ = '../remax/remax-b_r50_8xb8-50k_coco-1281.py'

model = dict(panoptic_head=dict(remask=dict(activation='softmax')))
