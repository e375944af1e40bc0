"""ReMaX on mmdet's MaskFormer with ResNet-50, COCO panoptic: four of six outputs relaxed, ReClass in all.

At test it is mmdet's MaskFormer. mmdet's published weights of that model load by `load_from`.

Paper:     arXiv 2306.17319 (names Mask2Former as future work, Appendix D) and arXiv 2107.06278
Train:     tools/dist_train.sh configs/mask2former/remax-maskformer_r50_ms-16xb1-75e_coco.py 16
Hardware:  16 GPUs, batch 16
Expected:  not known: nobody has published it, and we have not trained it. `loss_sem` is weighted by guess.
"""
_base_ = './maskformer_r50_ms-16xb1-75e_coco.py'

model = dict(
    panoptic_head=dict(
        type='ReMaXMaskFormerHead',
        remask=dict(
            type='ReMask',
            semantic_head=dict(
                type='StageSemanticHead', aspp_channels=128, norm_cfg=dict(type='GN', num_groups=32))),
        loss_sem=dict(type='CrossEntropyLoss', loss_weight=1.0, avg_non_ignore=True),
        reclass=dict(type='ReClass'),
        loss_cls=dict(type='SoftTargetCrossEntropyLoss')))
