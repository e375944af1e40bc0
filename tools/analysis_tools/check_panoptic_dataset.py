"""Check a panoptic dataset before training: files, ids, classes, areas. Print statistics of its classes.

    python tools/analysis_tools/check_panoptic_dataset.py --config CONFIG --split val
    python tools/analysis_tools/check_panoptic_dataset.py \
        --json annotations/panoptic_train.json --pngs annotations/panoptic_train --images train

With --config the class list is checked too. The exit code is 1 if training or evaluation would fail or give
wrong results.
"""
import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Sequence

from remax_mm.apis.command_line import add_processes, make_parser

if TYPE_CHECKING:
    from remax_mm.datasets import PanopticMapDataset


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('--config', help='take the dataset from this config')
    parser.add_argument(
        '--split',
        choices=['train', 'val', 'test'],
        default='train',
        help='split of the config (default: %(default)s)')
    parser.add_argument('--json', help='JSON file of the panoptic annotations')
    parser.add_argument('--pngs', help='folder of the panoptic PNGs')
    parser.add_argument('--images', help='folder of the images')
    parser.add_argument('--out', type=Path, help='write the report to this JSON file')
    parser.add_argument('--overwrite', action='store_true', help='let --out replace an existing file')
    add_processes(parser)
    parser.add_argument(
        '--most', type=int, default=5, help='most findings of a kind to print (default: %(default)s)')
    args = parser.parse_args(arguments)
    paths = [args.json, args.pngs, args.images]
    if (args.config is None) == (paths == [None] * 3) or (args.config is None and None in paths):
        parser.error('Expected either --config, or --json, --pngs and --images')
    if args.out is not None and args.out.exists() and not args.overwrite:
        parser.error(f'Expected --out to name a new file, but {args.out} exists; see --overwrite')
    return args


def find_dataset(args: argparse.Namespace) -> 'PanopticMapDataset':
    """The dataset of the arguments; its annotations are not loaded.

    Raises:
        ValueError: the config has a dataset of another package, or one without ground truth.
    """
    from mmdet.registry import DATASETS
    from mmengine.registry import init_default_scope

    from remax_mm.apis import load_config
    from remax_mm.apis.run_config import dataset_config
    from remax_mm.datasets import PanopticMapDataset

    if args.config is None:
        return PanopticMapDataset(
            ann_file=args.json, data_prefix=dict(img=args.images, seg=args.pngs), lazy_init=True)
    config = load_config(args.config)
    init_default_scope(config.get('default_scope', 'mmdet'))
    dataset = DATASETS.build(dict(dataset_config(config, args.split), pipeline=[], lazy_init=True))
    if not isinstance(dataset, PanopticMapDataset) or not dataset.data_prefix.get('seg'):
        raise ValueError(f'Expected a panoptic dataset with ground truth as {args.split} split of '
                         f'{args.config}, but got {type(dataset).__name__} with {dataset.data_prefix}')
    return dataset


def main(arguments: Optional[Sequence[str]] = None) -> int:
    args = parse_args(arguments)
    from mmengine.fileio import dump

    from remax_mm.datasets.checks import check_dataset, format_report, report_as_dict

    report = check_dataset(find_dataset(args), args.processes)
    print(f'\n{format_report(report, args.most)}')
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        dump(report_as_dict(report), args.out, indent=2)
    return int(report.has_errors)


if __name__ == '__main__':
    sys.exit(main())
