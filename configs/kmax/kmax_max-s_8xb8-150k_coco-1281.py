"""kMaX-DeepLab with MaX-S, the axial ResNet-50 of MaX-DeepLab, on COCO, crop 1281.

Paper:     arXiv 2207.04044; PQ of google-research/deeplab2, g3doc/projects/kmax_deeplab.md
Train:     tools/dist_train.sh configs/kmax/kmax_max-s_8xb8-150k_coco-1281.py 8
Hardware:  batch 64
Expected:  PQ 56.2 (deeplab2's from ImageNet-22K weights, not measured by us), 74.4 M parameters at inference
"""
_base_ = './kmax_r50_8xb8-150k_coco-1281.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='AxialResNet',
        norm_cfg=_base_.norm_cfg,
        drop_path_rate=0.2,
        # ImageNet weights are public for TensorFlow only; put a checkpoint of your own here.
        init_cfg=None))
