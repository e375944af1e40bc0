"""Train a model from a config."""
import argparse
from typing import Optional, Sequence

from mmengine.config import Config

from remax_mm.apis.command_line import (add_cfg_options, add_launch_arguments, exit_on_failed_download,
                                        make_parser)


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
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
        metavar='CHECKPOINT',
        help='resume from this checkpoint; without a path, from the latest one in the work dir')
    parser.add_argument(
        '--tensorboard',
        action='store_true',
        help='write losses, metrics and pictures for `tensorboard --logdir WORK_DIR`, too')
    add_cfg_options(parser, 'train_cfg.max_iters=100')
    add_launch_arguments(parser)
    return parser.parse_args(arguments)


def build_config(args: argparse.Namespace) -> Config:
    """The config of the run.

    Raises:
        FileNotFoundError: the config or the checkpoint does not exist.
        ModuleNotFoundError: TensorBoard is not installed, but asked for.
        ValueError: an option needs another option, or a key that the config does not have.
    """
    from remax_mm.apis.run_config import (load_run_config, resume_training, scale_learning_rate,
                                          use_mixed_precision, use_tensorboard)

    if args.amp_dtype and not args.amp:
        raise ValueError('Expected --amp together with --amp-dtype')
    config = load_run_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    if args.amp:
        config = use_mixed_precision(config, args.amp_dtype)
    if args.auto_scale_lr:
        config = scale_learning_rate(config)
    if args.tensorboard:
        config = use_tensorboard(config)
    if args.resume:
        config = resume_training(config, None if args.resume == 'auto' else args.resume)
    return config


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.apis.build_runner import build_runner
    from remax_mm.engine import one_sentence_if_disk_is_full

    config = build_config(args)
    with one_sentence_if_disk_is_full(config.work_dir), exit_on_failed_download():
        build_runner(config, args.local_rank).train()


if __name__ == '__main__':
    main()
