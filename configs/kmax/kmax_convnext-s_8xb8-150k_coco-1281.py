"""kMaX-DeepLab with ConvNeXt-S on COCO, crop 1281.

Paper:     arXiv 2207.04044; numbers of arXiv 2306.17319, Table 11
Train:     tools/dist_train.sh configs/kmax/kmax_convnext-s_8xb8-150k_coco-1281.py 8
Hardware:  batch 64
Expected:  PQ 56.3 (the paper's, not measured by us), 82.6 M parameters at inference
"""
_base_ = './kmax_convnext-t_8xb8-150k_coco-1281.py'

model = dict(
    backbone=dict(
        arch='small',
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint='https://dl.fbaipublicfiles.com/convnext/convnext_small_22k_224.pth')))
