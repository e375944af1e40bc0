"""ReMaX on mmdet's Mask2Former with ResNet-50, COCO panoptic: six of ten outputs relaxed, ReClass in all.

At test it is mmdet's Mask2Former. mmdet's published weights of that model load by `load_from`.

Paper:     arXiv 2306.17319 (names Mask2Former as future work, Appendix D) and arXiv 2112.01527
Train:     tools/dist_train.sh configs/mask2former/remax-mask2former_r50_8xb2-lsj-50e_coco-panoptic.py 8
Hardware:  8 GPUs, batch 16
Expected:  not known: nobody has published it, and we have not trained it. `loss_sem` is weighted by guess.
"""
_base_ = './mask2former_r50_8xb2-lsj-50e_coco-panoptic.py'

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
