"""ReMaX with ConvNeXt-T; COCO, crop 1281.

Paper:     arXiv 2306.17319, Table 11; the schedule is not stated
Train:     tools/dist_train.sh configs/remax/remax_convnext-t_8xb8-150k_coco-1281.py 8
Hardware:  batch 64
Expected:  PQ 55.9 (the paper's, not measured by us); at inference the same network as its kMaX parent
"""
_base_ = '../kmax/kmax_convnext-t_8xb8-150k_coco-1281.py'

model = dict(
    panoptic_head=dict(
        transformer_decoder=dict(
            num_relaxed=4,
            remask=dict(
                type='ReMask', semantic_head=dict(type='StageSemanticHead', in_channels=256,
                                                  num_classes=133))),
        criterion=dict(
            loss_mask_id=dict(type='SigmoidMaskIDLoss', loss_weight=0.3),
            loss_stage_sem=dict(type='SemanticLoss', loss_weight=0.5),
            reclass=dict(type='ReClass', smoothing=0.1))))

iterations = 150000
train_cfg = dict(max_iters=iterations)
optim_wrapper = dict(optimizer=dict(lr=6e-3, weight_decay=0.02))
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 5000, by_epoch=False, begin=0, end=5000),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        milestones=[iterations * 85 // 100, iterations * 95 // 100],
        gamma=0.1),
]
