"""Conversion of Cityscapes' instance annotations to the COCO panoptic format, without cityscapesscripts."""
from functools import partial
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from remax_mm.datasets.cityscapes_panoptic import CityscapesPanopticMapDataset
from remax_mm.panoptic_format import ConvertedImage, SegmentLabel, WrittenSplit, read_label_map, write_split

SOURCE_SUFFIX = '_gtFine_instanceIds.png'
MAX_LABEL = 33
FIRST_INSTANCE = 1000
"""An instance has the value 1000 * label + number, everything else has its label."""


class Label(NamedTuple):
    """A label that is evaluated; its index in the list is its train id."""
    id: int
    name: str
    group: str


# cityscapesScripts, helpers/labels.py, without labels that have `ignoreInEval` set: they are void.
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


def convert_cityscapes(folder: Path,
                       split: str,
                       out: Optional[Path] = None,
                       use_train_id: bool = False,
                       processes: int = 1,
                       overwrite: bool = False) -> WrittenSplit:
    """Write ``cityscapes_panoptic_<split>.json`` and a folder of PNGs of the same name.

    The content is that of createPanopticImgs of cityscapesscripts.

    Args:
        folder: Folder of the download with ``gtFine/<split>/<city>/<id>_gtFine_instanceIds.png``.
        split: ``train``, ``val`` or another folder of ``gtFine``.
        out: Folder to write to, ``<folder>/gtFine`` if None.
        use_train_id: Whether category ids are train ids instead of label ids; names then end in ``_trainId``.
        processes, overwrite: See :func:`write_split`.

    Raises:
        FileNotFoundError: the split has no annotation.
        FileExistsError: there are files with other content, and ``overwrite`` is False.
        ValueError: an annotation is damaged or has an unknown label.
    """
    paths = sorted((folder / 'gtFine' / split).glob(f'*/*{SOURCE_SUFFIX}'))
    if not paths:
        raise FileNotFoundError(f'Expected {folder}/gtFine/{split}/<city>/<id>{SOURCE_SUFFIX}, '
                                'but there is no such file')
    categories = list_categories(use_train_id)
    category_of = {label.id: category['id'] for label, category in zip(LABELS, categories)}
    ending = '_trainId' if use_train_id else ''
    ann_file = (folder / 'gtFine' if out is None else out) / f'cityscapes_panoptic_{split}{ending}.json'
    return write_split(ann_file, partial(convert_file, category_of), paths, categories, processes, overwrite)


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


def convert_instance_ids(
    values: np.ndarray,
    category_of: Dict[int, int],
) -> Tuple[np.ndarray, List[SegmentLabel]]:
    """Turn a map of instance ids into segment ids.

    Args:
        values: (H, W) labels in [0, 33], or 1000 * label + number for an instance.
        category_of: Category id of each label that is evaluated; other labels become void.

    Returns:
        (H, W) int32, the input value in segments and 0 elsewhere, and the segments. A thing label without
        number is a crowd.

    Raises:
        ValueError: a value belongs to no label.
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
