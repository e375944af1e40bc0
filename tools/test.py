"""Evaluate a checkpoint, and draw or export its predictions.

PQ, AP and mIoU from one forward pass: `--all-tasks`. AP with COCO's own instance annotations: `--all-tasks
--instance-ann data/coco/annotations/instances_val2017.json`.

Submission to COCO's server, with the image list of mmdet's tools/misc/gen_coco_panoptic_test_info.py:
`--format-only out/panoptic_test-dev2017_<name>_results --cfg-options
test_dataloader.dataset.ann_file=annotations/panoptic_image_info_test-dev2017.json
test_dataloader.dataset.data_prefix.img=test2017/`.

Test-time augmentation: `--tta`. Tiled inference for images larger than the crop size: `--tile 641`. Less time
with the same results: `--optimize`.

Evaluation and export of the predictions: `--cfg-options test_evaluator.outfile_prefix=out/val
test_evaluator.ann_file=<annotations>.json`.
"""
import argparse
from typing import Optional, Sequence

from mmengine.config import Config

from remax_mm.apis.command_line import (add_cfg_options, add_launch_arguments, add_test_time_arguments,
                                        apply_test_time_arguments, make_parser)


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--work-dir', help='folder of the logs (default: work_dirs/<config name>)')
    parser.add_argument('--out', help='write the metrics to this JSON file')
    parser.add_argument(
        '--all-tasks', action='store_true', help='evaluate AP of instances and mIoU of semantic maps too')
    parser.add_argument(
        '--instance-ann',
        metavar='JSON',
        help='instance annotations for the AP of --all-tasks (default: things of the panoptic annotations)')
    parser.add_argument(
        '--format-only',
        metavar='PREFIX',
        help='evaluate nothing; write PREFIX.json, PREFIX/*.png and PREFIX.zip with both, for a server')
    add_test_time_arguments(parser)
    parser.add_argument(
        '--optimize',
        nargs='?',
        const='float32',
        choices=['float32', 'bfloat16', 'float16'],
        help='fold batch norms and use faster layers, in float32 unless another type follows')
    parser.add_argument('--show', action='store_true', help='show input, ground truth and prediction')
    parser.add_argument(
        '--show-dir', help='write these pictures to this folder; a relative path is below work_dir/<time>')
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds between shown pictures (default: %(default)s)')
    add_cfg_options(parser, 'test_evaluator.classwise=True')
    add_launch_arguments(parser)
    return parser.parse_args(arguments)


def check_options(args: argparse.Namespace) -> None:
    """
    Raises:
        ValueError: --out is not a JSON file, or options exclude each other.
    """
    if args.out and not args.out.endswith('.json'):
        raise ValueError(
            f'Expected --out to name a JSON file for the metrics, but got {args.out}; predictions '
            'are exported with test_evaluator.outfile_prefix (see --help)')
    if args.format_only and (args.all_tasks or args.out):
        raise ValueError('Expected --format-only without --all-tasks and --out: it evaluates nothing')
    if args.instance_ann and not args.all_tasks:
        raise ValueError('Expected --instance-ann together with --all-tasks')
    if args.tile and args.all_tasks:
        raise ValueError('Expected --tile without --all-tasks: only panoptic maps are stitched from tiles')


def build_config(args: argparse.Namespace) -> Config:
    """The config of the run.

    Raises:
        FileNotFoundError: the config or the checkpoint does not exist.
        FileExistsError: predictions with the given prefix exist.
        ValueError: options exclude each other, or need a key that the config does not have.
    """
    from remax_mm.apis.evaluation_config import (check_prefixes, draw_predictions, evaluate_all_tasks,
                                                 format_only, load_weights, optimize_before_test)
    from remax_mm.apis.run_config import load_run_config

    check_options(args)
    config = load_run_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    config = load_weights(config, args.checkpoint)
    if args.all_tasks:
        config = evaluate_all_tasks(config, args.instance_ann)
    config = apply_test_time_arguments(args, config)  # selects the pipeline that --format-only changes
    if args.optimize:
        config = optimize_before_test(config, args.optimize)
    if args.format_only:
        config = format_only(config, args.format_only)
    check_prefixes(config)
    if args.show or args.show_dir:
        config = draw_predictions(config, args.show, args.show_dir, args.wait_time)
    return config


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from mmengine.fileio import dump

    from remax_mm.apis.build_runner import build_runner
    from remax_mm.panoptic_format.submission import zip_submission

    runner = build_runner(build_config(args), args.local_rank)
    metrics = runner.test()
    if args.out and runner.rank == 0:
        dump(metrics, args.out, file_format='json', indent=2)
    if args.format_only and runner.rank == 0:
        archive = zip_submission(args.format_only)
        print(f'Packed {args.format_only}.json and {args.format_only}/ into {archive}')


if __name__ == '__main__':
    main()
