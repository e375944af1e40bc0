"""ReMaX with MaX-S; Cityscapes, crop 1025x2049.

Paper:     arXiv 2306.17319, Table 9; the decay of rate and weights is not stated, this is that of COCO
Train:     tools/dist_train.sh configs/remax/remax_max-s_8xb4-60k_cityscapes-1025x2049.py 8
Hardware:  batch 32
Expected:  PQ 68.7 (the paper's, from ImageNet-22K, not measured by us); at inference as its kMaX parent
"""
_base_ = '../kmax/kmax_max-s_8xb4-60k_cityscapes-1025x2049.py'

model = dict(
    panoptic_head=dict(
        transformer_decoder=dict(
            num_relaxed=4,
            remask=dict(
                type='ReMask', semantic_head=dict(type='StageSemanticHead', in_channels=256,
                                                  num_classes=19))),
        criterion=dict(
            loss_mask_id=dict(type='SigmoidMaskIDLoss', loss_weight=0.3),
            loss_stage_sem=dict(type='SemanticLoss', loss_weight=0.5),
            reclass=dict(type='ReClass', smoothing=0.1))))

iterations = 60000
optim_wrapper = dict(optimizer=dict(lr=3e-3, weight_decay=0.005))
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 5000, by_epoch=False, begin=0, end=5000),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        milestones=[iterations * 85 // 100, iterations * 95 // 100],
        gamma=0.1),
]
