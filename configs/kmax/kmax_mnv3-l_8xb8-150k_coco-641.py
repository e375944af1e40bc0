"""kMaX-DeepLab with MobileNetV3-Large on COCO, crop 641: the baseline of ReMaX-S.

Paper:     arXiv 2306.17319, Table 12 (sizes) and Sec. 4 (ReMaX gains 2.5 PQ over it at 150K iterations)
Train:     tools/dist_train.sh configs/kmax/kmax_mnv3-l_8xb8-150k_coco-641.py 8
Hardware:  batch 64
Expected:  22.0 M parameters at inference (counted by us); the paper gives no PQ of its own
"""
_base_ = './kmax_r50_8xb8-150k_coco-641.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='KMaXMobileNetV3',
        arch='large',
        gate='hard_sigmoid',  # as the pretrained weights had it
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.pytorch.org/models/mobilenet_v3_large-8738ca79.pth')),
    panoptic_head=dict(
        in_channels=[72, 120, 672, 960],
        pixel_decoder=dict(num_blocks=[1, 1, 1, 1]),
        transformer_decoder=dict(num_layers=[1, 1, 1])))
