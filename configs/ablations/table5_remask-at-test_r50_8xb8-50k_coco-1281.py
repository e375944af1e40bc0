"""ReMaX-B that keeps ReMask at test.

Paper:     arXiv 2306.17319, Table 5, row 2
Train:     remax-b_r50_8xb8-50k_coco-1281.py, from which this differs at test only
Test:      tools/dist_test.sh configs/ablations/table5_remask-at-test_r50_8xb8-50k_coco-1281.py
           work_dirs/remax-b_r50_8xb8-50k_coco-1281/iter_50000.pth 8
Hardware:  batch 64
Expected:  PQ 52.4 (the paper's, not measured by us); slower than without
"""
_base_ = '../remax/remax-b_r50_8xb8-50k_coco-1281.py'

model = dict(panoptic_head=dict(remask=dict(type='ReMaskAtTest')))
