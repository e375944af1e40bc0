"""A program for torchrun: train with FSDP, as in docs/training_options.md, on two processes without a GPU.

    torchrun --standalone --nproc_per_node=2 tests/train_fsdp.py DATA WORK_DIR
"""
import sys

import torch
import torch.distributed as dist
from mmengine.registry import DefaultScope
from mmengine.runner._flexible_runner import FlexibleRunner

from remax_mm.apis.run_config import load_run_config


def main(data_root: str, work_dir: str) -> None:
    """Train two iterations and save sharded checkpoints."""
    options = {
        'train_dataloader.dataset.data_root': data_root,
        'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'train_cfg.max_iters': 2,
        'train_cfg.val_interval': 3,
        'model.channels_last': False,
    }
    cfg = load_run_config('configs/mini/remax_mnv3-s_1xb8-1k_mini-129.py', options, work_dir, 'pytorch')
    dist.init_process_group('gloo')  # mmengine would set a CUDA device
    # Without this device, mmengine shards onto a GPU.
    wrapper = dict(type='MMFullyShardedDataParallel', device_id=torch.device('cpu'))
    with DefaultScope.overwrite_default_scope('mmdet'):
        runner = FlexibleRunner(
            model=cfg.model,
            work_dir=work_dir,
            strategy=dict(type='FSDPStrategy', model_wrapper=wrapper),
            train_dataloader=cfg.train_dataloader,
            optim_wrapper=cfg.optim_wrapper,
            param_scheduler=cfg.param_scheduler,
            train_cfg=cfg.train_cfg,
            default_hooks=dict(
                runtime_info=cfg.default_hooks.runtime_info,
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
            log_processor=cfg.log_processor,
            default_scope='mmdet',
            launcher='pytorch')
        runner.train()
    held = sum(parameter.numel() for parameter in runner.model.parameters())
    print(f'\nparameters of process {dist.get_rank()}: {held}')
    dist.destroy_process_group()


if __name__ == '__main__':
    main(*sys.argv[1:])
