# kMaX-DeepLab: AdamW, linear warm-up, polynomial decay with power 0.9 (arXiv 2207.04044; deeplab2's configs).
# A child that trains longer restates `train_cfg` and `param_scheduler`.
iterations = 150000
warmup = 5000

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.999), eps=1e-7, weight_decay=0.05, fused=True),
    constructor='KernelDecayOptimWrapperConstructor',
    paramwise_cfg=dict(lr_mult=dict(backbone=0.1)))

# The polynomial counts from iteration 0, as in deeplab2, so that both apply during the warm-up.
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / warmup, by_epoch=False, begin=0, end=warmup),
    dict(type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=0, end=iterations),
]

train_cfg = dict(type='ResumableTrainLoop', max_iters=iterations, val_interval=5000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(enable=False, base_batch_size=64)
