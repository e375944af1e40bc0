"""kMaX-DeepLab with ConvNeXt-T on COCO, crop 1281.

Paper:     arXiv 2207.04044; numbers of arXiv 2306.17319, Table 11
Train:     tools/dist_train.sh configs/kmax/kmax_convnext-t_8xb8-150k_coco-1281.py 8
Hardware:  batch 64
Expected:  PQ 55.3 (the paper's, not measured by us), 60.9 M parameters at inference
"""
_base_ = './kmax_r50_8xb8-150k_coco-1281.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='KMaXConvNeXt',
        arch='tiny',
        drop_path_rate=0.3,
        init_cfg=dict(
            type='Pretrained',  # on ImageNet-22K, as in Table 11
            checkpoint='https://dl.fbaipublicfiles.com/convnext/convnext_tiny_22k_224.pth')),
    panoptic_head=dict(in_channels=[96, 192, 384, 768]))
