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
from functools import partial
from pathlib import Path
from typing import Optional, Sequence

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.fileio import dump, load
from mmengine.registry import init_default_scope

import remax_mm  # noqa: F401  (registers the datasets)
from remax_mm.apis import tested_dataset
from remax_mm.datasets import PanopticMapDataset
from remax_mm.datasets.checks import (DatasetReport, check_classes, check_image, check_json, find_unused_pngs,
                                      format_report, report_as_dict, summarize_dataset)
from remax_mm.panoptic_format import map_images


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


def check_dataset(dataset: PanopticMapDataset, processes: int) -> DatasetReport:
    """Look at the JSON, then at every image."""
    png_dir, image_dir = dataset.data_prefix['seg'], dataset.data_prefix['img']
    content = load(dataset.ann_file, file_format='json')
    found = check_json(content, dataset.ann_file, image_dir, png_dir, dataset.photo_name, dataset.png_name)
    findings = [*found.findings, *find_unused_pngs(found.tasks, png_dir)]
    if dataset.names_classes:
        classes = dataset.metainfo
        findings += check_classes(found.categories, classes['thing_classes'], classes['stuff_classes'],
                                  dataset.ann_file)

    check = partial(check_image, categories={category.id: category for category in found.categories})
    reports = list(map_images(check, found.tasks, processes))
    return summarize_dataset(found.categories, reports, findings)


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
