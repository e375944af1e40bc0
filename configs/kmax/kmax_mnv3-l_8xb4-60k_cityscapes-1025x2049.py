"""kMaX-DeepLab with MobileNetV3-Large on Cityscapes, crop 1025x2049.

Paper:     arXiv 2306.17319, Table 8; which decoder it took is not stated, this is that of ResNet-50
Train:     tools/dist_train.sh configs/kmax/kmax_mnv3-l_8xb4-60k_cityscapes-1025x2049.py 8
Hardware:  batch 32
Expected:  PQ 60.2 (the paper's, not measured by us), 36.6 M parameters at inference (counted by us)
"""
_base_ = './kmax_r50_8xb4-60k_cityscapes-1025x2049.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='KMaXMobileNetV3',
        arch='large',
        out_indices=(0, 1, 2, 3, 4),
        gate='hard_sigmoid',  # as the pretrained weights had it
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.pytorch.org/models/mobilenet_v3_large-8738ca79.pth')),
    panoptic_head=dict(in_channels=[16, 72, 120, 672, 960]))
