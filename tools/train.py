"""Train a model from a config."""
import argparse
import os
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from remax_mm.compat import prepare_launch  # the import makes mmdet importable and registers the models
from remax_mm.engine import one_sentence_if_disk_is_full


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints (default: work_dirs/<config name>)')
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument(
        '--amp-dtype', choices=['float16', 'bfloat16'], help='precision of --amp (default: float16)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size over `auto_scale_lr.base_batch_size`')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint, without a path from the latest one of the work dir')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='overrides of the config, such as train_cfg.max_iters=100 a.list="[1,2]"')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')
    return parser.parse_args()


def build_config(args: argparse.Namespace) -> Config:
    """The config of a run: the file, then --cfg-options, then the other arguments.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: an option lacks what it needs in the config.
    """
    if not Path(args.config).is_file():
        raise FileNotFoundError(f'Expected a config file at {args.config}, but there is none.')
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)

    if args.amp_dtype and not args.amp:
        raise ValueError('Expected --amp together with --amp-dtype')
    if args.amp:
        use_mixed_precision(cfg, args.amp_dtype)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError(f'Expected `auto_scale_lr.base_batch_size` in {args.config} for --auto-scale-lr')
        cfg.auto_scale_lr.enable = True

    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
        if cfg.load_from and '://' not in cfg.load_from and not Path(cfg.load_from).is_file():
            raise FileNotFoundError(f'Expected a checkpoint to resume at {cfg.load_from}, but there is none.')
    return cfg


def use_mixed_precision(cfg: Config, dtype: str = None) -> None:
    """Turn the optimizer wrapper into its mixed precision kind; what else it says stays.

    A loss scale is only needed for float16, whose smallest numbers would vanish; an own one is kept.
    """
    wrapper = cfg.optim_wrapper
    if wrapper.get('type', 'OptimWrapper') not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(
            f'Expected `optim_wrapper.type` to be OptimWrapper for --amp, but got {wrapper.type}')
    wrapper.type = 'AmpOptimWrapper'
    if dtype is not None:
        wrapper.dtype = dtype
    wrapper.setdefault('loss_scale', 'dynamic')


def main() -> None:
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = build_config(args)
    with one_sentence_if_disk_is_full(cfg.work_dir):
        prepare_launch(cfg)
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        runner.train()


if __name__ == '__main__':
    main()
