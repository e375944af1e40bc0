"""ReMaX-B with the true semantics alone: without the identity no mask is left outside its class's area.

Paper:     arXiv 2306.17319, Table 7, row 2, read by Sec. 4.2: positive predictions outside "will be removed"
Train:     tools/dist_train.sh configs/ablations/table7_ground-truth-filter_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  PQ 45.1 (the paper's, not measured by us), if this is what that row means
"""
_base_ = './table7_ground-truth_r50_8xb8-50k_coco-1281.py'

model = dict(panoptic_head=dict(remask=dict(identity=False)))
