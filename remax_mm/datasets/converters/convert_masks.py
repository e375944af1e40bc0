"""Conversion of semantic masks and instance masks, or COCO instances, to the COCO panoptic format.

The masks have the names of the photos, with another ending. A semantic PNG has a class value per pixel, an
instance PNG a number per pixel, 0 for none. Numbers identify instances within their class, and numbers on
stuff are ignored. A thing without a number is a crowd region.
"""
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

import numpy as np
import yaml
from mmengine.fileio import load

from remax_mm.panoptic_format import (ConvertedImage, SegmentLabel, WrittenSplit, check_unique, list_some,
                                      number_keys, read_label_map, read_photo_size, write_split)
from .coco_instances import ImageInstances, draw_instances, read_instances

REQUIRED_KEYS, OPTIONAL_KEYS = ('name', 'value', 'isthing'), ('color', 'supercategory')
KEY_BASE = 2**32
"""The key of a pixel is KEY_BASE * (class value + 1) + instance number."""


class MaskSource(NamedTuple):
    """Where the photos and the masks are, and how their names end.

    Attributes:
        images: Folder of photos.
        semantic: Folder of semantic PNGs.
        instances: Folder of instance PNGs.
        instances_json: COCO instance annotations, which replace the instance PNGs.
    """
    images: Path
    semantic: Path
    instances: Optional[Path] = None
    instances_json: Optional[Path] = None
    image_suffix: str = '.jpg'
    semantic_suffix: str = '.png'
    instance_suffix: str = '.png'

    def list_photos(self) -> List[Path]:
        """All photos, sorted by name.

        Raises:
            ValueError: there is none.
        """
        photos = sorted(self.images.rglob(f'*{self.image_suffix}'))
        if not photos:
            raise ValueError(f'Expected photos {self.images}/*{self.image_suffix}, but there is none; '
                             '`--image-suffix` sets another ending')
        return photos

    def name_of(self, photo: Path) -> str:
        """Path of a photo below its folder, without the ending."""
        return photo.relative_to(self.images).as_posix()[:-len(self.image_suffix)]

    def semantic_of(self, photo: Path) -> Path:
        """Semantic PNG of a photo."""
        return self.semantic / f'{self.name_of(photo)}{self.semantic_suffix}'


class Classes(NamedTuple):
    """Categories of the JSON, whose ids are the values in the semantic PNGs, and values that are void."""
    categories: List[dict]
    void_values: List[int]

    @property
    def is_thing(self) -> Dict[int, bool]:
        """Whether a class is a thing, by its value."""
        return {category['id']: bool(category['isthing']) for category in self.categories}

    @property
    def value_of_thing(self) -> Dict[str, int]:
        """Value of each thing class, by its name."""
        return {category['name']: category['id'] for category in self.categories if category['isthing']}


class MaskedPhoto(NamedTuple):
    """An image; ``instances`` is a PNG, or annotations, or None if no class is a thing."""
    image_id: int
    name: str  # path of the photo below its folder, without the ending
    photo: Path
    semantic: Path
    instances: Union[Path, ImageInstances, None]


def convert_masks(ann_file: Path,
                  source: MaskSource,
                  class_file: Path,
                  void_values: Sequence[int] = (),
                  processes: int = 1,
                  overwrite: bool = False) -> WrittenSplit:
    """Write ``ann_file`` and a folder of PNGs of the same name.

    Args:
        ann_file: JSON to write.
        source: Photos and masks.
        class_file: JSON or YAML, see :func:`read_classes`.
        void_values: Semantic values that are unlabeled.
        processes, overwrite: See :func:`write_split`.

    Raises:
        FileNotFoundError: a mask is missing.
        FileExistsError: there are files with other content, and ``overwrite`` is False.
        ValueError: the class file, a mask or an annotation is damaged, or they do not fit together.
    """
    classes = read_classes(class_file, void_values)
    if classes.value_of_thing and source.instances is None and source.instances_json is None:
        raise ValueError(f'Expected `--instances` or `--instances-json` for the things of {class_file}, '
                         f'{list_some(classes.value_of_thing)}')
    photos = find_masks(source, classes)
    convert = partial(convert_photo, classes, source.images)
    return write_split(ann_file, convert, photos, classes.categories, processes, overwrite)


def read_classes(path: Path, void_values: Sequence[int] = (), has_values: bool = True) -> Classes:
    """Read the class file, a list of entries with a name, a value and ``isthing``, and perhaps a color and a
    supercategory.

    Args:
        path: JSON or YAML.
        void_values: Values that are unlabeled.
        has_values: Whether the classes need values. Otherwise entries without a value are numbered from 1,
            if none has one.

    Raises:
        ValueError: an entry lacks a key, has an unknown one or a value out of range, or two entries share a
            name or a value.
    """
    try:
        entries = load(str(path))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f'Expected JSON or YAML in {path}, but cannot read it: {error}') from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries) or not entries:
        raise ValueError(f'Expected a list of entries with name, value and isthing in {path}')
    if not has_values and not any('value' in entry for entry in entries):
        entries = [dict(entry, value=number) for number, entry in enumerate(entries, 1)]
    for entry in entries:
        if not set(REQUIRED_KEYS) <= set(entry) <= {*REQUIRED_KEYS, *OPTIONAL_KEYS}:
            raise ValueError(
                f'Expected name, value and isthing, and optionally color and supercategory, in each '
                f'entry of {path}, but got {entry}')
        is_value = isinstance(entry['value'], int) and 0 <= entry['value'] < KEY_BASE // 2
        if not is_value or entry['isthing'] not in (0, 1):
            raise ValueError(
                f'Expected a value of at least 0, and 0 or 1 as isthing, in {path}, but got {entry}')

    names, values = ([entry[key] for entry in entries] for key in ('name', 'value'))
    check_unique('name', 'classes', names, str(path))
    check_unique('value', 'classes', values, str(path))
    check_unique('value', 'classes and --void', [*void_values, *values], str(path))
    categories = [
        dict(
            id=entry['value'],
            name=entry['name'],
            isthing=int(entry['isthing']),
            **{key: entry[key]
               for key in OPTIONAL_KEYS if key in entry}) for entry in entries
    ]
    return Classes(categories, list(void_values))


def find_masks(source: MaskSource, classes: Classes) -> List[MaskedPhoto]:
    """Each photo with its masks, in the order of the photos.

    Raises:
        ValueError: there is no photo, or the instance annotations are damaged or lack a photo.
    """
    annotated = None
    if source.instances_json is not None:
        annotated = read_instances(source.instances_json, classes.value_of_thing)
    found = []
    for image_id, photo in enumerate(source.list_photos(), 1):
        name, file_name = source.name_of(photo), photo.relative_to(source.images).as_posix()
        instances: Union[Path, ImageInstances, None] = None
        if annotated is not None:
            if file_name not in annotated:
                raise ValueError(
                    f'Expected {photo} among the `images` of {source.instances_json} as {file_name!r}')
            instances = annotated[file_name]
        elif source.instances is not None:
            instances = source.instances / f'{name}{source.instance_suffix}'
        found.append(MaskedPhoto(image_id, name, photo, source.semantic_of(photo), instances))
    return found


def unused_semantic_pngs(source: MaskSource) -> Set[Path]:
    """Semantic PNGs without a photo."""
    used = {source.semantic_of(photo) for photo in source.list_photos()}
    return set(source.semantic.rglob(f'*{source.semantic_suffix}')) - used


def convert_photo(classes: Classes, folder: Path, files: MaskedPhoto) -> ConvertedImage:
    """Convert the masks of one image; ``folder`` is that of the photos."""
    size = read_photo_size(files.photo)
    semantic, numbers = read_label_map(files.semantic), np.zeros(size, np.int64)
    _check_size(files, files.semantic, semantic.shape, size)
    if isinstance(files.instances, ImageInstances):
        _check_size(files, 'the JSON of instances', files.instances.size, size)
    elif files.instances is not None:
        numbers = read_label_map(files.instances)
        _check_size(files, files.instances, numbers.shape, size)

    try:
        if isinstance(files.instances, ImageInstances):
            semantic, numbers = draw_instances(semantic, files.instances.instances)
        ids, labels, notes = combine_masks(semantic, numbers, classes)
    except ValueError as error:
        raise ValueError(f'Cannot convert the masks of {files.photo}: {error}') from error
    file_name = files.photo.relative_to(folder).as_posix()
    return ConvertedImage(files.image_id, file_name, f'{files.name}.png', ids, labels, notes)


def _check_size(files: MaskedPhoto, what: Any, size: Tuple[int, ...], expected: Tuple[int, int]) -> None:
    if tuple(size) != expected:
        raise ValueError(f'Expected annotation of the size of {files.photo}, {expected} (height, width), '
                         f'but {what} has {tuple(size)}')


def combine_masks(semantic: np.ndarray, numbers: np.ndarray,
                  classes: Classes) -> Tuple[np.ndarray, List[SegmentLabel], Dict[str, int]]:
    """Turn class values and instance numbers into segments.

    Args:
        semantic: (H, W) class values.
        numbers: (H, W) instance numbers in [0, 2^32), 0 for none.

    Returns:
        (H, W) int32 segment ids 1, 2, ..., their classes, and notes for the report.

    Raises:
        ValueError: a value has no class, or a number is negative.
    """
    is_thing = classes.is_thing
    present = np.unique(semantic).tolist()
    unknown = [value for value in present if value not in is_thing and value not in classes.void_values]
    if unknown:
        raise ValueError(f'Expected the values of the class file, but got also {unknown[:5]}; if these are '
                         f'unlabeled, add `--void {" ".join(map(str, unknown))}`')
    if numbers.min() < 0:
        raise ValueError(f'Expected instance numbers of at least 0, but got {numbers.min()}')

    on_thing = np.isin(semantic, [value for value, thing in is_thing.items() if thing])
    keys = (semantic.astype(np.int64) + 1) * KEY_BASE + np.where(on_thing, numbers, 0)
    keys[np.isin(semantic, classes.void_values)] = 0
    ids, found = number_keys(keys)
    labels = []
    for segment_id, key in enumerate(found, 1):
        value, number = key // KEY_BASE - 1, key % KEY_BASE
        labels.append(SegmentLabel(segment_id, value, iscrowd=is_thing[value] and number == 0))
    ignored = int(((numbers > 0) & ~on_thing).sum())
    return ids, labels, {'instance numbers on stuff or void, which are ignored': ignored}
