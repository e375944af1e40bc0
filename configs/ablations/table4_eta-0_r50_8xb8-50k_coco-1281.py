"""ReMaX-B with eta = 0 in Eq. 4: ReMask without ReClass.

Paper:     arXiv 2306.17319, Table 4
Train:     tools/dist_train.sh configs/ablations/table4_eta-0_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  PQ 51.7 (the paper's, not measured by us)
"""
_base_ = '../remax/remax-b_r50_8xb8-50k_coco-1281.py'

model = dict(panoptic_head=dict(criterion=dict(reclass=dict(smoothing=0.0))))
