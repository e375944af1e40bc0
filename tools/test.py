"""Evaluate a checkpoint, and draw or export its predictions.

COCO's submission format (PNG and JSON) comes from the metric, with the options
`--cfg-options test_evaluator.outfile_prefix=out/test test_evaluator.ann_file=<annotations>.json`, and
`test_evaluator.format_only=True` for images without annotations.
"""
import argparse
import os
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.fileio import dump
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

import remax_mm  # noqa: F401  (makes mmdet importable and registers the models)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--work-dir', help='folder of the metrics (default: work_dirs/<config name>)')
    parser.add_argument('--out', help='write the metrics to this JSON file')
    parser.add_argument('--show', action='store_true', help='show input, ground truth and prediction')
    parser.add_argument(
        '--show-dir', help='write those pictures to this folder; a relative one lies in work_dir/<time>')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds between pictures of --show')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='overrides of the config, such as test_evaluator.classwise=True a.list="[1,2]"')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')
    return parser.parse_args()


def build_config(args: argparse.Namespace) -> Config:
    """The config of a run: the file, then --cfg-options, then the other arguments.

    Raises:
        FileNotFoundError: there is no such config or checkpoint.
        ValueError: --out names no JSON file, or pictures are wanted of a config without visualization hook.
    """
    if args.out and not args.out.endswith('.json'):
        raise ValueError(
            f'Expected --out to name a JSON file for the metrics, but got {args.out}; predictions '
            'are exported with test_evaluator.outfile_prefix (see --help)')
    for what, path in (('a config file', args.config), ('a checkpoint', args.checkpoint)):
        if '://' not in path and not Path(path).is_file():
            raise FileNotFoundError(f'Expected {what} at {path}, but there is none.')
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    cfg.load_from = args.checkpoint

    if args.show or args.show_dir:
        if 'visualization' not in cfg.get('default_hooks', {}):
            raise ValueError(
                f'Expected `default_hooks.visualization` in {args.config} for --show and --show-dir')
        hook = cfg.default_hooks.visualization
        hook.update(draw=True, show=args.show, wait_time=args.wait_time)
        if args.show_dir:
            hook.test_out_dir = args.show_dir
    return cfg


def main() -> None:
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = build_config(args)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    metrics = runner.test()
    if args.out and runner.rank == 0:
        dump(metrics, args.out, file_format='json', indent=2)


if __name__ == '__main__':
    main()
