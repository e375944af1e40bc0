"""kMaX-DeepLab with the ResNet-50 of google-research/deeplab2 on COCO, crop 1281.

It has no max-pool, and its features are not activated. tools/model_converters/deeplab2_to_remax_mm.py brings
TensorFlow's weights here.

Paper:     arXiv 2207.04044; PQ of google-research/deeplab2, g3doc/projects/kmax_deeplab.md
Train:     tools/dist_train.sh configs/kmax/kmax_r50-deeplab2_8xb8-150k_coco-1281.py 8
Hardware:  batch 64
Expected:  PQ 53.0 (deeplab2's, not measured by us), 56.6 M parameters at inference
"""
_base_ = './kmax_r50_8xb8-150k_coco-1281.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='DeepLab2ResNet',
        norm_cfg=_base_.norm_cfg,
        # ImageNet weights are public for TensorFlow only; put a checkpoint of your own here.
        init_cfg=None))
