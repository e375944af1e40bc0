# ReMaX (arXiv 2306.17319): what a head adds to that of kMaX-DeepLab or MaX-DeepLab. A child config says
# `model = dict(panoptic_head=_base_.remax)`. ReMask acts on the first two thirds of the decoder layers.
remax = dict(
    remask=dict(type='ReMask', semantic_head=dict(type='StageSemanticHead')),
    criterion=dict(
        loss_mask_id=dict(type='SigmoidMaskIDLoss'),
        loss_stage_sem=dict(type='SemanticLoss', loss_weight=0.5),
        reclass=dict(type='ReClass')))

# Its schedules by length: linear warm-up, then a tenth of the rate after 85 % and 95 % of the iterations.
linear_warmup = dict(type='LinearLR', start_factor=1 / 5000, by_epoch=False, begin=0, end=5000)
step_schedules = {
    '50k': [linear_warmup,
            dict(type='MultiStepLR', by_epoch=False, milestones=[42500, 47500], gamma=0.1)],
    '60k': [linear_warmup,
            dict(type='MultiStepLR', by_epoch=False, milestones=[51000, 57000], gamma=0.1)],
    '100k': [linear_warmup,
             dict(type='MultiStepLR', by_epoch=False, milestones=[85000, 95000], gamma=0.1)],
    '150k': [linear_warmup,
             dict(type='MultiStepLR', by_epoch=False, milestones=[127500, 142500], gamma=0.1)],
    '200k': [linear_warmup,
             dict(type='MultiStepLR', by_epoch=False, milestones=[170000, 190000], gamma=0.1)],
}
