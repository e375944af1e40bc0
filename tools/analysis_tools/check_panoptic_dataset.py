#!/usr/bin/env python
"""Check a panoptic dataset before training: files, ids, classes, areas; and count what it holds.

    python tools/analysis_tools/check_panoptic_dataset.py --config CONFIG --split val
    python tools/analysis_tools/check_panoptic_dataset.py \
        --json annotations/panoptic_train.json --pngs annotations/panoptic_train --images train

With --config the class list is checked too. The exit code is 1 if there is something that training or
evaluation would trip over.
"""
import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.fileio import dump
from mmengine.registry import init_default_scope

import remax_mm  # noqa: F401  (registers the datasets)
from remax_mm.apis import tested_dataset
from remax_mm.datasets import PanopticMapDataset
from remax_mm.datasets.checks import check_dataset, format_report, report_as_dict


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', help='take the dataset from this config')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='train', help='of the config')
    parser.add_argument('--json', help='panoptic annotations')
    parser.add_argument('--pngs', help='folder of the panoptic PNGs')
    parser.add_argument('--images', help='folder of the images')
    parser.add_argument('--out', type=Path, help='write the report as JSON')
    parser.add_argument('--overwrite', action='store_true', help='--out may replace a file')
    parser.add_argument('--processes', type=int, default=1, help='that look at images (default: 1)')
    parser.add_argument('--most', type=int, default=5, help='findings of a kind to print (default: 5)')
    args = parser.parse_args(arguments)
    paths = [args.json, args.pngs, args.images]
    if (args.config is None) == (paths == [None] * 3) or (args.config is None and None in paths):
        parser.error('Expected either --config, or --json, --pngs and --images')
    if args.out is not None and args.out.exists() and not args.overwrite:
        parser.error(f'Expected --out to name a new file, but {args.out} exists; see --overwrite')
    return args


def find_dataset(args: argparse.Namespace) -> PanopticMapDataset:
    """The dataset that the arguments name, its JSON unread.

    Raises:
        ValueError: the config's dataset is none of this package, or its ground truth is not named.
    """
    if args.config is None:
        return PanopticMapDataset(
            ann_file=args.json, data_prefix=dict(img=args.images, seg=args.pngs), lazy_init=True)
    config = Config.fromfile(args.config)
    init_default_scope(config.get('default_scope', 'mmdet'))
    dataset = DATASETS.build(dict(tested_dataset(config, args.split), pipeline=[], lazy_init=True))
    if not isinstance(dataset, PanopticMapDataset) or not dataset.data_prefix.get('seg'):
        raise ValueError(f'Expected a panoptic dataset with ground truth as {args.split} split of '
                         f'{args.config}, but got {type(dataset).__name__} with {dataset.data_prefix}')
    return dataset


def main(arguments: Optional[Sequence[str]] = None) -> int:
    args = parse_args(arguments)
    report = check_dataset(find_dataset(args), args.processes)
    print(f'\n{format_report(report, args.most)}')
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        dump(report_as_dict(report), args.out, indent=2)
    return int(report.has_errors)


if __name__ == '__main__':
    sys.exit(main())
