"""Evaluate a checkpoint, and draw or export its predictions.

PQ, AP and mIoU from one forward pass: `--all-tasks`, and with COCO's own instance annotations for AP
`--instance-ann data/coco/annotations/instances_val2017.json`.

A submission to COCO's server, for which mmdet's tools/misc/gen_coco_panoptic_test_info.py writes the list of
images: `--format-only out/panoptic_test-dev2017_<name>_results --cfg-options
test_dataloader.dataset.ann_file=annotations/panoptic_image_info_test-dev2017.json
test_dataloader.dataset.data_prefix.img=test2017/`.

Several views of each image, merged: `--tta`. Images larger than the crop, in tiles: `--tile 641`.

Predictions as files beside an evaluation: `--cfg-options test_evaluator.outfile_prefix=out/val
test_evaluator.ann_file=<annotations>.json`.
"""
import argparse
import os
import zipfile
from pathlib import Path
from typing import Optional

from mmengine.config import Config, DictAction
from mmengine.fileio import dump, join_path
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.utils import is_abs

import remax_mm  # noqa: F401  (makes mmdet importable and registers the models)
from remax_mm.apis import add_test_time_arguments, apply_test_time_arguments, loads_annotation, tested_dataset
from remax_mm.compat import prepare_launch


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--work-dir', help='folder of the metrics (default: work_dirs/<config name>)')
    parser.add_argument('--out', help='write the metrics to this JSON file')
    parser.add_argument(
        '--all-tasks', action='store_true', help='AP of instances and mIoU of semantic maps beside PQ')
    parser.add_argument(
        '--instance-ann',
        metavar='JSON',
        help='instance annotations for the AP of --all-tasks (default: the things of the panoptic ones)')
    parser.add_argument(
        '--format-only',
        metavar='PREFIX',
        help='evaluate nothing; write PREFIX.json, PREFIX/*.png and PREFIX.zip with both, for a server')
    add_test_time_arguments(parser)
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


def check_options(args: argparse.Namespace) -> None:
    """
    Raises:
        ValueError: --out names no JSON file, or options do not go together.
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
        raise ValueError('Expected --tile without --all-tasks: tiles are stitched to panoptic maps alone')


def build_config(args: argparse.Namespace) -> Config:
    """The config of a run: the file, then --cfg-options, then the other arguments.

    Raises:
        FileNotFoundError: there is no such config or checkpoint.
        FileExistsError: there are predictions of that name.
        ValueError: pictures are wanted of a config without visualization hook, or options do not go together.
    """
    check_options(args)
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
    cfg.custom_hooks = [*cfg.get('custom_hooks', ()), dict(type='CheckWeightsHook')]
    if args.all_tasks:
        evaluate_all_tasks(cfg, args.instance_ann)
    apply_test_time_arguments(args, cfg)  # selects the pipeline, from which --format-only removes steps
    if args.format_only:
        write_submission_only(cfg, args.format_only)
    check_prefixes(cfg)

    if args.show or args.show_dir:
        if 'visualization' not in cfg.get('default_hooks', {}):
            raise ValueError(
                f'Expected `default_hooks.visualization` in {args.config} for --show and --show-dir')
        hook = cfg.default_hooks.visualization
        hook.update(draw=True, show=args.show, wait_time=args.wait_time)
        if args.show_dir:
            hook.test_out_dir = args.show_dir
    return cfg


def evaluate_all_tasks(cfg: Config, instance_ann: Optional[str] = None) -> None:
    """Let the model predict instances and semantic maps too, and evaluate them beside the panoptic maps.

    Args:
        cfg: Changed; metrics that it has stay, new ones take ``classwise`` and ``backend_args`` of the first.
        instance_ann: Instance annotations for AP, in place of those of the config.
    """
    all_on = dict(panoptic_on=True, instance_on=True, semantic_on=True)
    cfg.model.test_cfg = dict(cfg.model.get('test_cfg') or {}, **all_on)
    evaluators = list(cfg.test_evaluator) if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    shared = {key: evaluators[0][key] for key in ('classwise', 'backend_args') if key in evaluators[0]}
    present = {evaluator['type'] for evaluator in evaluators}
    for metric in ('PanopticInstanceAPMetric', 'PanopticSemanticIoUMetric'):
        if metric not in present:
            evaluators.append(dict(type=metric, **shared))
    if instance_ann:
        next(e for e in evaluators if e['type'] == 'PanopticInstanceAPMetric')['ann_file'] = instance_ann
    cfg.test_evaluator = evaluators


def write_submission_only(cfg: Config, prefix: str) -> None:
    """Write the predictions in COCO's format and evaluate nothing, so that no ground truth is read.

    Args:
        cfg: Changed; its test dataset needs an ``ann_file`` with ``images`` and ``categories`` only.
        prefix: Path of the JSON, the folder and the archive without their suffix.

    """
    dataset = tested_dataset(cfg)
    dataset.get('data_prefix', {}).pop('seg', None)
    dataset.pipeline = [step for step in dataset.pipeline if not loads_annotation(step)]
    ann_file, data_root = dataset.ann_file, dataset.get('data_root')
    cfg.test_evaluator = dict(
        type='PanopticQualityMetric',
        format_only=True,
        outfile_prefix=prefix,
        ann_file=join_path(data_root, ann_file) if data_root and not is_abs(ann_file) else ann_file,
        backend_args=dataset.get('backend_args'))


def check_prefixes(cfg: Config) -> None:
    """
    Raises:
        FileExistsError: a metric would write its predictions over others, or among them.
    """
    for evaluator in cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]:
        prefix = evaluator.get('outfile_prefix')
        taken = [path for path in (f'{prefix}.json', f'{prefix}', f'{prefix}.zip') if Path(path).exists()]
        if prefix is not None and taken:
            raise FileExistsError(f'Expected a new prefix for the predictions, but there is {taken[0]}')


def zip_submission(prefix: str) -> None:
    """Pack a submission as a server wants it: JSON and folder at the top of the archive."""
    root = Path(prefix)
    with zipfile.ZipFile(f'{prefix}.zip', 'w') as archive:
        archive.write(f'{prefix}.json', f'{root.name}.json', zipfile.ZIP_DEFLATED)
        for path in sorted(root.glob('*.png')):
            archive.write(path, f'{root.name}/{path.name}')
    print(f'Packed {prefix}.json and {prefix}/ into {prefix}.zip')


def main() -> None:
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = build_config(args)
    prepare_launch(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    metrics = runner.test()
    if args.out and runner.rank == 0:
        dump(metrics, args.out, file_format='json', indent=2)
    if args.format_only and runner.rank == 0:
        zip_submission(args.format_only)


if __name__ == '__main__':
    main()
