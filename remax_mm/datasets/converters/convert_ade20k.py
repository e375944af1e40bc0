"""Conversion of ADE20K's semantic and instance annotations to the COCO panoptic format.

Instances are drawn over stuff. Pixels of a thing class without an instance are void, as in Mask2Former
(datasets/prepare_ade20k_pan_seg.py) and mmdet (tools/dataset_converters/ade20k2coco.py).
"""
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

import numpy as np

from remax_mm.datasets.ade20k_panoptic import SCENE_PARSING_CLASSES, ADE20KPanopticMapDataset
from remax_mm.panoptic_format import (ConvertedImage, SegmentLabel, WrittenSplit, number_keys, read_channels,
                                      read_label_map, read_photo_size, write_split)

FOLDER_OF_SPLIT = dict(train='training', val='validation')
CLASSES = ADE20KPanopticMapDataset.METAINFO['classes']
NUM_THINGS = len(ADE20KPanopticMapDataset.METAINFO['thing_classes'])
# Label of each value of the semantic annotation. Value 0, unlabeled, gets the label after the last class.
LABEL_OF_VALUE = np.array([len(CLASSES), *map(CLASSES.index, SCENE_PARSING_CLASSES)])

INSTANCE_KEY = 1000
"""Keys of instances start here. Keys of stuff are its labels, which are at least 100."""


class AnnotatedPhoto(NamedTuple):
    """Files of one image."""
    photo: Path
    semantic: Path
    instances: Path


class Segments(NamedTuple):
    """Segment ids (H, W), their classes, and the number of pixels of a thing class without an instance."""
    ids: np.ndarray
    labels: List[SegmentLabel]
    without_instance: int


def convert_ade20k(folder: Path,
                   split: str,
                   out: Optional[Path] = None,
                   processes: int = 1,
                   overwrite: bool = False) -> WrittenSplit:
    """Write ``ade20k_panoptic_<split>.json`` and a folder of PNGs of the same name.

    Args:
        folder: ADEChallengeData2016 with ``images``, ``annotations`` and ``annotations_instance``.
        split: ``train`` or ``val``.
        out: Folder to write to, ``folder`` if None.
        processes, overwrite: See :func:`write_split`.

    Raises:
        FileNotFoundError: files are missing.
        FileExistsError: there are files with other content, and ``overwrite`` is False.
        ValueError: the split is unknown, or an annotation is damaged or has values out of range.
    """
    ann_file = (folder if out is None else out) / f'ade20k_panoptic_{split}.json'
    photos = find_photos(folder, split)
    return write_split(ann_file, convert_photo, photos, list_categories(), processes, overwrite)


def find_photos(folder: Path, split: str) -> List[AnnotatedPhoto]:
    """Files of a split, sorted by name."""
    if split not in FOLDER_OF_SPLIT:
        raise ValueError(f'Expected `split` to be one of {list(FOLDER_OF_SPLIT)}, but got {split!r}')
    photos = sorted((folder / 'images' / FOLDER_OF_SPLIT[split]).glob('*.jpg'))
    if not photos:
        raise FileNotFoundError(f'Expected {folder}/images/{FOLDER_OF_SPLIT[split]}/*.jpg, '
                                'but there is no such file')
    annotations = [folder / kind / FOLDER_OF_SPLIT[split] for kind in ('annotations', 'annotations_instance')]
    for path in annotations:
        if not path.is_dir():
            raise FileNotFoundError(f'Expected the folder {path}, but there is none; '
                                    'the instances are a separate download')
    return [AnnotatedPhoto(photo, *(path / f'{photo.stem}.png' for path in annotations)) for photo in photos]


def convert_photo(files: AnnotatedPhoto) -> ConvertedImage:
    """Convert the annotations of one image."""
    photo = files.photo
    semantic, instances = read_label_map(files.semantic), read_channels(files.instances)
    size = read_photo_size(photo)
    for path, values in ((files.semantic, semantic), (files.instances, instances)):
        if values.shape[:2] != size:
            raise ValueError(f'Expected an annotation of the size of {photo}, {size} (height, width), '
                             f'but {path} has {values.shape[:2]}')
    if instances.ndim != 3 or instances.shape[2] < 2:
        raise ValueError(f'Expected class and instance in the channels R and G of {files.instances}, '
                         f'but its shape is {instances.shape}')
    try:
        segments = combine_annotations(semantic, instances)
    except ValueError as error:
        raise ValueError(f'Cannot convert {files.semantic} and {files.instances}: {error}') from error
    return ConvertedImage(
        image_id=photo.stem,
        file_name=photo.name,
        png_name=f'{photo.stem}.png',
        ids=segments.ids,
        labels=segments.labels,
        notes={'things without an instance, which are void': segments.without_instance})


def combine_annotations(semantic: np.ndarray, instances: np.ndarray) -> Segments:
    """Draw the instances over the stuff.

    Args:
        semantic: (H, W), 0 where unlabeled, otherwise 1 + the index in :data:`SCENE_PARSING_CLASSES`.
        instances: (H, W, 3) R, G, B of the instance annotation: R is the number of the thing class, from 1
            on, G the number of the instance in the image, 0 for none.

    Raises:
        ValueError: a value is out of range, or an instance has several classes.
    """
    if semantic.max() >= len(LABEL_OF_VALUE):
        raise ValueError(f'Expected semantic values in [0, {len(SCENE_PARSING_CLASSES)}], '
                         f'but got {semantic.max()}')
    category, number = instances[..., 0].astype(np.int64), instances[..., 1].astype(np.int64)
    category_of: Dict[int, int] = {}
    for pair in np.unique((number * 256 + category)[number > 0]).tolist():
        if category_of.setdefault(pair // 256, pair % 256) != pair % 256:
            raise ValueError(f'Expected one class for instance {pair // 256}, but got several')
        if not 1 <= pair % 256 <= NUM_THINGS:
            raise ValueError(f'Expected thing classes in [1, {NUM_THINGS}], but instance {pair // 256} '
                             f'has class {pair % 256}')

    label = LABEL_OF_VALUE[semantic]
    is_stuff = (label >= NUM_THINGS) & (label < len(CLASSES))
    keys = np.where(number > 0, INSTANCE_KEY + number, np.where(is_stuff, label, 0))
    ids, present = number_keys(keys)
    labels = [
        SegmentLabel(segment_id, category_of[key - INSTANCE_KEY] - 1 if key > INSTANCE_KEY else key)
        for segment_id, key in enumerate(present, 1)
    ]
    return Segments(ids, labels, without_instance=int(((label < NUM_THINGS) & (number == 0)).sum()))


def list_categories() -> List[dict]:
    """Categories of the JSON; their ids are the labels, as in mmdet's converter."""
    palette = ADE20KPanopticMapDataset.METAINFO['palette']
    return [
        dict(id=label, name=name, isthing=int(label < NUM_THINGS), color=list(palette[label]))
        for label, name in enumerate(CLASSES)
    ]
