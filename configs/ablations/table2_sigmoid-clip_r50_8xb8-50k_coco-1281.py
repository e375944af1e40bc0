"""kMaX-DeepLab with sigmoid mask-ID loss and gradients clipped to a total norm of 0.01: no relaxation.

Paper:     arXiv 2306.17319, Table 2, row 4; the value is that of Sec. 1
Train:     tools/dist_train.sh configs/ablations/table2_sigmoid-clip_r50_8xb8-50k_coco-1281.py 8
Hardware:  batch 64
Expected:  PQ 51.2 (the paper's, not measured by us)
"""
_base_ = './table2_sigmoid_r50_8xb8-50k_coco-1281.py'

optim_wrapper = dict(clip_grad=dict(max_norm=0.01, norm_type=2))
