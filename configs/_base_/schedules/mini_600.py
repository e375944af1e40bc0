# AdamW from scratch on the mini set, 600 iterations.
iterations = 600
train_cfg = dict(type='ResumableTrainLoop', max_iters=iterations, val_interval=iterations)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=0.1),
    constructor='KernelDecayOptimWrapperConstructor')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        milestones=[iterations * 85 // 100, iterations * 95 // 100],
        gamma=0.1),
]
