"""kMaX-DeepLab with ResNet-50 on Cityscapes as released for PyTorch: masks at stride 4.

The fourth stage of the pixel decoder takes the stem after the max-pool, the fifth res2; both have stride 4.
tools/model_converters/kmax_to_remax_mm.py brings the public weights here.

Paper:     arXiv 2207.04044; code, weights and PQ of bytedance/kmax-deeplab
Train:     tools/dist_train.sh configs/kmax/kmax_r50-os4_8xb4-60k_cityscapes-1025x2049.py 8
Hardware:  batch 32
Expected:  PQ 63.5 (the release's, not measured by us), 56.4 M parameters at inference
"""
_base_ = './kmax_r50_8xb4-60k_cityscapes-1025x2049.py'

model = dict(
    backbone=dict(out_features=['res2', 'pooled_stem', 'res3', 'res4', 'res5']),
    panoptic_head=dict(in_channels=[256, 64, 512, 1024, 2048]))
