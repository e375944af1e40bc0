"""ReMaX-B without the identity of Eq. 2; no ReMask at test.

Paper:     arXiv 2306.17319, Table 5, row 4
Train:     tools/dist_train.sh configs/ablations/table5_no-identity_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  PQ 51.9 (the paper's, not measured by us)
"""
_base_ = '../remax/remax-b_r50_8xb8-50k_coco-1281.py'

model = dict(panoptic_head=dict(remask=dict(identity=False)))
