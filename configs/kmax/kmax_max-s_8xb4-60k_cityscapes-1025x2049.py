"""kMaX-DeepLab with MaX-S, the axial ResNet-50 of MaX-DeepLab, on Cityscapes, crop 1025x2049.

Paper:     arXiv 2207.04044; numbers of arXiv 2306.17319, Table 9
Train:     tools/dist_train.sh configs/kmax/kmax_max-s_8xb4-60k_cityscapes-1025x2049.py 8
Hardware:  batch 32
Expected:  PQ 66.4 (the paper's, from ImageNet-22K, not measured by us), 74.2 M parameters at inference
"""
_base_ = './kmax_r50_8xb4-60k_cityscapes-1025x2049.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='AxialResNet',
        with_stem=True,
        norm_cfg=_base_.norm_cfg,
        drop_path_rate=0.2,
        # ImageNet weights are public for TensorFlow only; put a checkpoint of your own here.
        init_cfg=None),
    panoptic_head=dict(in_channels=[128, 256, 512, 1024, 2048]))
