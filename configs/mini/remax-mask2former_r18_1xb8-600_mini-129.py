"""mmdet's own Mask2Former with ReMask and ReClass in training, on the drawn mini set, crop 129.

Data:      python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
Train:     python tools/train.py configs/mini/remax-mask2former_r18_1xb8-600_mini-129.py
Hardware:  2 CPU cores
"""
_base_ = './mask2former_r18_1xb8-600_mini-129.py'

model = dict(
    panoptic_head=dict(
        type='ReMaXMask2FormerHead',
        remask=dict(
            type='ReMask',
            semantic_head=dict(
                type='StageSemanticHead', aspp_channels=32, norm_cfg=dict(type='GN', num_groups=16))),
        loss_sem=dict(type='CrossEntropyLoss', loss_weight=1.0, avg_non_ignore=True),
        reclass=dict(type='ReClass'),
        loss_cls=dict(type='SoftTargetCrossEntropyLoss')))
