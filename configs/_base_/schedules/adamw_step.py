# ReMaX: AdamW, linear warm-up, decay x0.1 at 85 % and 95 % of the iterations (arXiv 2306.17319, Sec. 4).
# A child that trains longer restates `train_cfg` and `param_scheduler`.
iterations = 50000
warmup = 5000

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-3, betas=(0.9, 0.999), eps=1e-7, weight_decay=0.005),
    constructor='KernelDecayOptimWrapperConstructor',
    paramwise_cfg=dict(lr_mult=dict(backbone=0.1)))

param_scheduler = [
    dict(type='LinearLR', start_factor=1 / warmup, by_epoch=False, begin=0, end=warmup),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        milestones=[iterations * 85 // 100, iterations * 95 // 100],
        gamma=0.1),
]

train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=5000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(enable=False, base_batch_size=64)
