"""ReClass without ReMask.

Paper:     arXiv 2306.17319, Table 3, another reading of 0 ReMasks
Train:     tools/dist_train.sh configs/ablations/table3_reclass-only_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  the paper gives no number, unless this is its row of PQ 50.4
"""
_base_ = './table2_sigmoid_r50_8xb8-50k_coco-1281.py'

model = dict(panoptic_head=dict(criterion=dict(reclass=dict(_delete_=True, type='ReClass'))))
