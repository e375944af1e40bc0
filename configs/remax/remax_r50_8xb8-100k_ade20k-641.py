"""ReMaX with ResNet-50; ADE20K, crop 641.

Paper:     arXiv 2306.17319, Table 10; settings of COCO, by its Sec. 4.4
Train:     tools/dist_train.sh configs/remax/remax_r50_8xb8-100k_ade20k-641.py 8
Hardware:  batch 64
Expected:  PQ 41.9, mIoU 45.7 (the paper's, not measured by us); at inference as its kMaX parent
"""
_base_ = '../kmax/kmax_r50_8xb8-100k_ade20k-641.py'

model = dict(
    panoptic_head=dict(
        transformer_decoder=dict(
            num_relaxed=4,
            remask=dict(
                type='ReMask', semantic_head=dict(type='StageSemanticHead', in_channels=256,
                                                  num_classes=150))),
        criterion=dict(
            loss_mask_id=dict(type='SigmoidMaskIDLoss', loss_weight=0.3),
            loss_stage_sem=dict(type='SemanticLoss', loss_weight=0.5),
            reclass=dict(type='ReClass', smoothing=0.1))))

iterations = 100000
optim_wrapper = dict(optimizer=dict(lr=6e-3, weight_decay=0.005))
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 5000, by_epoch=False, begin=0, end=5000),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        milestones=[iterations * 85 // 100, iterations * 95 // 100],
        gamma=0.1),
]
