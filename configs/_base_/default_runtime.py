custom_imports = dict(imports=['remax_mm'], allow_failed_imports=False)
default_scope = 'mmdet'

default_hooks = dict(
    # Losses for the log, without waiting for the GPU in every iteration.
    runtime_info=dict(type='BackgroundRuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='SafeCheckpointHook',
        by_epoch=False,
        interval=5000,
        save_last=True,
        max_keep_ckpts=3,
        save_best='coco_panoptic/PQ',
        rule='greater'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # Model, training and validation set must mean the same classes.
    check_classes=dict(type='CheckClassesHook'),
    # The weights of `load_from`, and those of a resumed training, must fit the model.
    check_load_from=dict(type='CheckLoadFromHook'),
    # A second training in the same work directory refuses to start.
    work_dir_lock=dict(type='WorkDirLockHook'),
    # SIGTERM, SIGUSR1 and Ctrl-C end a training after the iteration, with a checkpoint (docs/reliability.md).
    stop_on_signal=dict(type='StopOnSignalHook'),
    # A process of a distributed training that does not answer ends all of them, and is named in the log.
    frozen_rank=dict(type='FrozenRankHook'),
    visualization=dict(type='DetVisualizationHook', backend_args=None))

log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
log_level = 'INFO'

visualizer = dict(
    type='PanopticVisualizer', name='visualizer', alpha=0.6, vis_backends=[dict(type='LocalVisBackend')])

# The crop is fixed, so that cuDNN may search for the fastest kernels once.
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    # Seconds that a process waits for the others in a collective call, also for an evaluation on one of them.
    dist_cfg=dict(backend='nccl', timeout=1800))

# Batch norms become synchronized ones under a launcher, and stay as they are on one device.
sync_bn = 'torch'

load_from = None
resume = False
