"""ReMaX on mmdet's Mask2Former with ResNet-50 for COCO instances alone: six of ten outputs relaxed.

Data and pipeline are mmdet's own. What no instance covers is background, a class of the semantic head.

Paper:     arXiv 2306.17319 (names Mask2Former as future work, Appendix D) and arXiv 2112.01527
Train:     tools/dist_train.sh configs/mask2former/remax-mask2former_r50_8xb2-lsj-50e_coco.py 8
Hardware:  8 GPUs, batch 16
Expected:  not known: nobody has published it, and we have not trained it. `loss_sem` is weighted by guess.
"""
_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
custom_imports = dict(imports=['remax_mm'], allow_failed_imports=False)

model = dict(
    panoptic_head=dict(
        type='ReMaXMask2FormerHead',
        remask=dict(
            type='ReMask',
            semantic_head=dict(
                type='StageSemanticHead', aspp_channels=128, norm_cfg=dict(type='GN', num_groups=32))),
        loss_sem=dict(type='CrossEntropyLoss', loss_weight=1.0, avg_non_ignore=True),
        reclass=dict(type='ReClass'),
        loss_cls=dict(type='SoftTargetCrossEntropyLoss')))
