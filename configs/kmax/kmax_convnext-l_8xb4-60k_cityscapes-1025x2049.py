"""kMaX-DeepLab with ConvNeXt-L on Cityscapes, crop 1025x2049.

ConvNeXt has nothing at stride 2, so that the masks have stride 4.
tools/model_converters/kmax_to_remax_mm.py brings the public weights here.

Paper:     arXiv 2207.04044; numbers of arXiv 2306.17319, Table 9
Train:     tools/dist_train.sh configs/kmax/kmax_convnext-l_8xb4-60k_cityscapes-1025x2049.py 8
Hardware:  batch 32
Expected:  PQ 68.4 (the paper's, not measured by us), 231.7 M parameters at inference
"""
_base_ = './kmax_r50_8xb4-60k_cityscapes-1025x2049.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='KMaXConvNeXt',
        arch='large',
        with_stem=True,
        drop_path_rate=0.6,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://dl.fbaipublicfiles.com/convnext/convnext_large_22k_224.pth')),
    panoptic_head=dict(in_channels=[192, 192, 384, 768, 1536]))
