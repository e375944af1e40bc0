#!/usr/bin/env python
"""Convert Cityscapes' instance annotation to COCO's panoptic format; cityscapesscripts are not needed.

    python tools/dataset_converters/cityscapes_panoptic.py data/cityscapes --processes 4

Reads ``gtFine/{split}/<city>/<id>_gtFine_instanceIds.png`` of the download (gtFine_trainvaltest.zip). Writes
``gtFine/cityscapes_panoptic_{split}.json`` and a folder of PNGs of the same name, with the content that
createPanopticImgs of cityscapesscripts gives them. A run that was interrupted can be started again.
"""
import argparse
from functools import partial
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from remax_mm.datasets import CityscapesPanopticMapDataset
from remax_mm.panoptic_format import ConvertedImage, SegmentLabel, read_label_map, write_split

SOURCE_SUFFIX = '_gtFine_instanceIds.png'
MAX_LABEL = 33
FIRST_INSTANCE = 1000  # an instance has the value 1000 * label + number, everything else its label


class Label(NamedTuple):
    """A label that is evaluated; its place in the list is its train id."""
    id: int
    name: str
    group: str


# cityscapesScripts, helpers/labels.py, without the labels that `ignoreInEval` names: these are void.
LABELS = (
    Label(7, 'road', 'flat'),
    Label(8, 'sidewalk', 'flat'),
    Label(11, 'building', 'construction'),
    Label(12, 'wall', 'construction'),
    Label(13, 'fence', 'construction'),
    Label(17, 'pole', 'object'),
    Label(19, 'traffic light', 'object'),
    Label(20, 'traffic sign', 'object'),
    Label(21, 'vegetation', 'nature'),
    Label(22, 'terrain', 'nature'),
    Label(23, 'sky', 'sky'),
    Label(24, 'person', 'human'),
    Label(25, 'rider', 'human'),
    Label(26, 'car', 'vehicle'),
    Label(27, 'truck', 'vehicle'),
    Label(28, 'bus', 'vehicle'),
    Label(31, 'train', 'vehicle'),
    Label(32, 'motorcycle', 'vehicle'),
    Label(33, 'bicycle', 'vehicle'),
)
THINGS = {
    label.id
    for label in LABELS if label.name in CityscapesPanopticMapDataset.METAINFO['thing_classes']
}


def list_categories(use_train_id: bool) -> List[dict]:
    """Categories of the JSON, with label ids or with train ids."""
    color_of = dict(zip(*(CityscapesPanopticMapDataset.METAINFO[key] for key in ('classes', 'palette'))))
    return [
        dict(
            id=train_id if use_train_id else label.id,
            name=label.name,
            color=list(color_of[label.name]),
            supercategory=label.group,
            isthing=int(label.id in THINGS)) for train_id, label in enumerate(LABELS)
    ]


def convert_instance_ids(values: np.ndarray, category_of: Dict[int,
                                                               int]) -> Tuple[np.ndarray, List[SegmentLabel]]:
    """Turn a map of instance ids into segment ids.

    Args:
        values: (H, W) labels in [0, 33], or 1000 * label + number for an instance.
        category_of: Category id of each label that is evaluated; other labels are void.

    Returns:
        (H, W) int32, the values of segments and 0 elsewhere, and the segments. A thing label without number
        is a crowd.

    Raises:
        ValueError: a value is of no label.
    """
    present = np.flatnonzero(np.bincount(values.ravel()))
    labels = np.where(present < FIRST_INSTANCE, present, present // FIRST_INSTANCE)
    if labels.max() > MAX_LABEL:
        raise ValueError(f'Expected labels in [0, {MAX_LABEL}] or 1000 * label + number, '
                         f'but got the values {present[labels > MAX_LABEL][:5].tolist()}')

    segments = [
        SegmentLabel(value, category_of[label], iscrowd=value < FIRST_INSTANCE and label in THINGS)
        for value, label in zip(present.tolist(), labels.tolist()) if label in category_of
    ]
    segment_ids = [segment.id for segment in segments]
    table = np.zeros(present[-1] + 1, np.int32)
    table[segment_ids] = segment_ids
    return table[values], segments


def convert_file(category_of: Dict[int, int], path: Path) -> ConvertedImage:
    """Convert one ``*_gtFine_instanceIds.png``."""
    try:
        ids, segments = convert_instance_ids(read_label_map(path), category_of)
    except ValueError as error:
        raise ValueError(f'Cannot convert {path}: {error}') from error
    image_id = path.name[:-len(SOURCE_SUFFIX)]
    return ConvertedImage(
        image_id=image_id,
        file_name=f'{image_id}_gtFine_leftImg8bit.png',
        png_name=f'{image_id}_gtFine_panoptic.png',
        ids=ids,
        labels=segments)


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='folder of the download, with gtFine in it')
    parser.add_argument('--splits', nargs='+', default=['train', 'val'], help='default: train val')
    parser.add_argument('--out', type=Path, help='folder to write into, default: <folder>/gtFine')
    parser.add_argument(
        '--use-train-id',
        action='store_true',
        help='category ids are train ids, and names end in _trainId; the dataset reads both')
    parser.add_argument('--processes', type=int, default=1, help='number of processes (default: 1)')
    parser.add_argument('--overwrite', action='store_true', help='replace files that differ')
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    categories = list_categories(args.use_train_id)
    category_of = {label.id: category['id'] for label, category in zip(LABELS, categories)}
    ending = '_trainId' if args.use_train_id else ''
    for split in args.splits:
        paths = sorted((args.folder / 'gtFine' / split).glob(f'*/*{SOURCE_SUFFIX}'))
        if not paths:
            raise SystemExit(f'error: Expected {args.folder}/gtFine/{split}/<city>/<id>{SOURCE_SUFFIX}, '
                             'but there is no such file')
        ann_file = (args.out or args.folder / 'gtFine') / f'cityscapes_panoptic_{split}{ending}.json'
        try:
            print(
                write_split(ann_file, partial(convert_file, category_of), paths, categories, args.processes,
                            args.overwrite))
        except (ValueError, OSError) as error:
            raise SystemExit(f'error: {error}')


if __name__ == '__main__':
    main()
