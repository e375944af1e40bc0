"""MaX-DeepLab-S with the relaxations of ReMaX; COCO, crop 641.

Paper:     arXiv 2306.17319, which relaxes kMaX-DeepLab only
Train:     tools/dist_train.sh configs/max_deeplab/remax-max-deeplab-s_8xb8-100k_coco-641.py 8
Hardware:  batch 64
Expected:  no PQ is published; at inference the same network as its parent
"""
_base_ = './max-deeplab-s_8xb8-100k_coco-641.py'

model = dict(
    panoptic_head=dict(
        remask=dict(
            type='ReMask',
            semantic_head=dict(
                type='StageSemanticHead', in_channels=256, num_classes=133, act_cfg=_base_.act_cfg)),
        criterion=dict(
            loss_mask_id=dict(type='SigmoidMaskIDLoss', loss_weight=0.3),
            loss_stage_sem=dict(type='SemanticLoss', loss_weight=0.5),
            reclass=dict(type='ReClass', smoothing=0.1))))
