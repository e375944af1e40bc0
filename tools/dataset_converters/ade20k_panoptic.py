#!/usr/bin/env python
"""Convert ADE20K's semantic and instance annotation to COCO's panoptic format.

    python tools/dataset_converters/ade20k_panoptic.py data/ADEChallengeData2016 --processes 4

Reads ``images``, ``annotations`` (both of ADEChallengeData2016.zip) and ``annotations_instance`` (of
annotations_instance.tar, http://sceneparsing.csail.mit.edu and CSAILVision/placeschallenge,
instancesegmentation/README.md), each with ``training`` and ``validation``. Writes
``ade20k_panoptic_{train,val}.json`` and folders of PNGs of the same name. A run that was interrupted can be
started again.

Instances lie over stuff. Pixels of things that belong to no instance are void, as in Mask2Former
(datasets/prepare_ade20k_pan_seg.py) and mmdet (tools/dataset_converters/ade20k2coco.py).
"""
import argparse
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence

import numpy as np

from remax_mm.datasets import SCENE_PARSING_CLASSES, ADE20KPanopticMapDataset
from remax_mm.panoptic_format import (ConvertedImage, SegmentLabel, number_keys, read_channels,
                                      read_label_map, read_photo_size, write_split)

FOLDER_OF_SPLIT = dict(train='training', val='validation')
CLASSES = ADE20KPanopticMapDataset.METAINFO['classes']
NUM_THINGS = len(ADE20KPanopticMapDataset.METAINFO['thing_classes'])
# Label of each value of the semantic annotation; 0, which is unlabeled, gets the one after the last.
LABEL_OF_VALUE = np.array([len(CLASSES), *map(CLASSES.index, SCENE_PARSING_CLASSES)])

INSTANCE_KEY = 1000
"""Keys of instances start here; those of stuff are its labels, which are at least 100."""


class Job(NamedTuple):
    """Files of one image."""
    photo: Path
    semantic: Path
    instances: Path


class Segments(NamedTuple):
    """Segment ids (H, W), what they are, and the number of pixels that are a thing but no instance."""
    ids: np.ndarray
    labels: List[SegmentLabel]
    without_instance: int


def list_categories() -> List[dict]:
    """Categories of the JSON; their ids are the labels, as in mmdet's converter."""
    palette = ADE20KPanopticMapDataset.METAINFO['palette']
    return [
        dict(id=label, name=name, isthing=int(label < NUM_THINGS), color=list(palette[label]))
        for label, name in enumerate(CLASSES)
    ]


def combine_annotations(semantic: np.ndarray, instances: np.ndarray) -> Segments:
    """Lay the instances over the stuff.

    Args:
        semantic: (H, W), 0 where unlabeled, or v for the class v - 1 of :data:`SCENE_PARSING_CLASSES`.
        instances: (H, W, 3) R, G, B of the instance annotation: R is the number of the thing class from 1 on,
            G that of the instance in the image, 0 for none.

    Raises:
        ValueError: a value is out of range, or an instance is of several classes.
    """
    if semantic.max() >= len(LABEL_OF_VALUE):
        raise ValueError(f'Expected semantic values in [0, {len(SCENE_PARSING_CLASSES)}], '
                         f'but got {semantic.max()}')
    category, number = instances[..., 0].astype(np.int64), instances[..., 1].astype(np.int64)
    category_of = {}
    for pair in np.unique((number * 256 + category)[number > 0]).tolist():
        if category_of.setdefault(pair // 256, pair % 256) != pair % 256:
            raise ValueError(f'Expected one class for instance {pair // 256}, but got several')
        if not 1 <= pair % 256 <= NUM_THINGS:
            raise ValueError(f'Expected thing classes in [1, {NUM_THINGS}], but instance {pair // 256} is '
                             f'of {pair % 256}')

    label = LABEL_OF_VALUE[semantic]
    is_stuff = (label >= NUM_THINGS) & (label < len(CLASSES))
    keys = np.where(number > 0, INSTANCE_KEY + number, np.where(is_stuff, label, 0))
    ids, present = number_keys(keys)
    labels = [
        SegmentLabel(segment_id, category_of[key - INSTANCE_KEY] - 1 if key > INSTANCE_KEY else key)
        for segment_id, key in enumerate(present, 1)
    ]
    return Segments(ids, labels, without_instance=int(((label < NUM_THINGS) & (number == 0)).sum()))


def convert_files(job: Job) -> ConvertedImage:
    """Convert the annotations of one image."""
    semantic, instances = read_label_map(job.semantic), read_channels(job.instances)
    size = read_photo_size(job.photo)
    for path, values in ((job.semantic, semantic), (job.instances, instances)):
        if values.shape[:2] != size:
            raise ValueError(f'Expected an annotation of the size of {job.photo}, {size} (height, width), '
                             f'but {path} is {values.shape[:2]}')
    if instances.ndim != 3 or instances.shape[2] < 2:
        raise ValueError(f'Expected class and instance in the channels R and G of {job.instances}, '
                         f'but its shape is {instances.shape}')
    try:
        segments = combine_annotations(semantic, instances)
    except ValueError as error:
        raise ValueError(f'Cannot convert {job.semantic} and {job.instances}: {error}') from error
    return ConvertedImage(
        image_id=job.photo.stem,
        file_name=job.photo.name,
        png_name=f'{job.photo.stem}.png',
        ids=segments.ids,
        labels=segments.labels,
        notes={'things without an instance, which are void': segments.without_instance})


def find_jobs(folder: Path, split: str) -> List[Job]:
    """Files of a split, in the order of their names."""
    photos = sorted((folder / 'images' / FOLDER_OF_SPLIT[split]).glob('*.jpg'))
    if not photos:
        raise FileNotFoundError(f'Expected {folder}/images/{FOLDER_OF_SPLIT[split]}/*.jpg, '
                                'but there is no such file')
    for kind in ('annotations', 'annotations_instance'):
        if not (folder / kind / FOLDER_OF_SPLIT[split]).is_dir():
            raise FileNotFoundError(f'Expected the folder {folder / kind / FOLDER_OF_SPLIT[split]}, '
                                    'but there is none; the instances are a download of their own')
    return [
        Job(
            photo,
            *(folder / kind / FOLDER_OF_SPLIT[split] / f'{photo.stem}.png'
              for kind in ('annotations', 'annotations_instance'))) for photo in photos
    ]


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='ADEChallengeData2016')
    parser.add_argument('--splits', nargs='+', default=['train', 'val'], choices=FOLDER_OF_SPLIT)
    parser.add_argument('--out', type=Path, help='folder to write into, default: <folder>')
    parser.add_argument('--processes', type=int, default=1, help='number of processes (default: 1)')
    parser.add_argument('--overwrite', action='store_true', help='replace files that differ')
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    for split in args.splits:
        ann_file = (args.out or args.folder) / f'ade20k_panoptic_{split}.json'
        try:
            jobs = find_jobs(args.folder, split)
            print(
                write_split(ann_file, convert_files, jobs, list_categories(), args.processes, args.overwrite))
        except (ValueError, OSError) as error:
            raise SystemExit(f'error: {error}')


if __name__ == '__main__':
    main()
