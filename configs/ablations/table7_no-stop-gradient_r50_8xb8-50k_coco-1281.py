"""ReMaX-B whose panoptic losses reach the semantic heads through ReMask.

Paper:     arXiv 2306.17319, Table 7, row 3
Train:     tools/dist_train.sh configs/ablations/table7_no-stop-gradient_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  PQ 36.6 (the paper's, not measured by us), who report that it does not converge well
"""
_base_ = '../remax/remax-b_r50_8xb8-50k_coco-1281.py'

model = dict(panoptic_head=dict(remask=dict(stop_gradient=False)))
