"""Conversion of annotation tools' files to the COCO panoptic format."""
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from remax_mm.panoptic_format import (ConvertedImage, WrittenSplit, list_some, read_label_map,
                                      read_photo_size, write_split)
from .convert_masks import Classes, combine_masks, read_classes
from .read_coco import read_coco
from .read_cvat_masks import CvatMasks, read_cvat_export, read_cvat_masks
from .read_labelme import read_labelme
from .read_via import read_via
from .shapes import DrawingRules, ShapedPhoto, check_labels_known, draw_shapes

FORMATS = ('labelme', 'via', 'coco', 'cvat-masks')
PHOTO_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.JPG', '.JPEG', '.PNG')


class AnnotationSource(NamedTuple):
    """What to convert.

    Attributes:
        format: One of ``FORMATS``.
        annotations: Folder of labelme files, JSON of VIA or COCO, or folder of an unpacked CVAT export.
        images: Folder of photos.
        semantic: Folder of semantic PNGs below the shapes; None for unlabeled pixels.
        label_attribute: See :func:`read_via`.
    """
    format: str
    annotations: Path
    images: Path
    semantic: Optional[Path] = None
    label_attribute: Optional[str] = None


class NumberedPhoto(NamedTuple):
    """A photo to convert, its id in the JSON, and its path relative to the folder of photos."""
    image_id: int
    file_name: str
    content: Any


def convert_annotations(ann_file: Path,
                        source: AnnotationSource,
                        class_file: Path,
                        rules: DrawingRules = DrawingRules(),
                        void_values: Sequence[int] = (),
                        val_file: Optional[Path] = None,
                        val_every: int = 10,
                        processes: int = 1,
                        overwrite: bool = False) -> List[WrittenSplit]:
    """Write ``ann_file`` and a folder of PNGs of the same name.

    Args:
        ann_file: JSON to write.
        source: Annotations and photos.
        class_file: JSON or YAML, see :func:`read_classes`.
        rules: How shapes become pixels.
        void_values: Values of the semantic PNGs that are unlabeled.
        val_file: Second JSON, for every ``val_every``-th photo in the order of the names.
        processes, overwrite: See :func:`write_split`.

    Raises:
        FileNotFoundError: an annotation or a photo is missing.
        FileExistsError: there are files with other content, and ``overwrite`` is False.
        ValueError: an annotation is damaged, or does not fit to its photo or to the classes.
    """
    classes = read_classes(class_file, void_values, has_values=source.semantic is not None)
    photos, convert = _read_source(source, classes, rules)
    check_photos(photos, source)
    if val_file is None:
        return [write_split(ann_file, convert, photos, classes.categories, processes, overwrite)]
    if val_every < 2 or len(photos) < val_every:
        raise ValueError(
            f'Expected a number from 2 to the {len(photos)} photos as --val-every, but got {val_every}')
    splits = [photo for number, photo in enumerate(photos, 1)
              if number % val_every], photos[val_every - 1::val_every]
    return [
        write_split(path, convert, split, classes.categories, processes, overwrite)
        for path, split in zip((ann_file, val_file), splits)
    ]


def _read_source(
        source: AnnotationSource, classes: Classes,
        rules: DrawingRules) -> Tuple[List[NumberedPhoto], Callable[[NumberedPhoto], ConvertedImage]]:
    """All photos in the order of their names, and the function that converts one."""
    if source.format == 'cvat-masks':
        if source.semantic is not None:
            raise ValueError(
                'Expected no --semantic with --format cvat-masks, which has its own semantic masks')
        export = read_cvat_export(source.annotations)
        names = {find_photo(source.images, name): name for name in export.names}
        photos = [NumberedPhoto(number, *item) for number, item in enumerate(sorted(names.items()), 1)]
        return photos, partial(_convert_masks, source, classes, rules, export)

    read: Dict[str, Callable[[], List[ShapedPhoto]]] = dict(
        labelme=partial(read_labelme, source.annotations),
        via=partial(read_via, source.annotations, source.label_attribute),
        coco=partial(read_coco, source.annotations))
    if source.format not in read:
        raise ValueError(f'Expected one of {", ".join(FORMATS)} as --format, but got {source.format!r}')
    shaped = sorted(read[source.format](), key=lambda photo: photo.file_name)
    check_labels_known(shaped, classes, rules)
    photos = [NumberedPhoto(number, photo.file_name, photo) for number, photo in enumerate(shaped, 1)]
    return photos, partial(_convert_shapes, source, classes, rules)


def check_photos(photos: Sequence[NumberedPhoto], source: AnnotationSource) -> None:
    """
    Raises:
        FileNotFoundError: photos are missing.
        ValueError: there is no photo.
    """
    if not photos:
        raise ValueError(f'Expected annotations in {source.annotations}, but there are none')
    missing = [photo.file_name for photo in photos if not (source.images / photo.file_name).is_file()]
    if missing:
        raise FileNotFoundError(f'Expected the photos of {source.annotations} in {source.images}, but '
                                f'{list_some(missing)} are not there')


def find_photo(folder: Path, name: str) -> str:
    """Name of a photo with its ending.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several, or the name leaves the folder.
    """
    if '..' in Path(name).parts or Path(name).is_absolute():
        raise ValueError(f'Expected a name inside of {folder}, but got {name!r}')
    found = sorted({name + suffix for suffix in PHOTO_SUFFIXES if (folder / (name + suffix)).is_file()})
    if not found:
        raise FileNotFoundError(
            f'Expected a photo {folder}/{name} with an ending such as .jpg or .png, but there '
            'is none')
    if len(found) > 1:
        raise ValueError(
            f'Expected one photo for the name {name!r} in {folder}, but there are {list_some(found)}')
    return found[0]


def _convert_shapes(source: AnnotationSource, classes: Classes, rules: DrawingRules,
                    photo: NumberedPhoto) -> ConvertedImage:
    shaped: ShapedPhoto = photo.content
    path = source.images / photo.file_name
    size = read_photo_size(path)
    void_value = _free_value(classes)
    if shaped.size not in (None, size):
        raise ValueError(
            f'Expected {path} to have the size {shaped.size} (height, width) of {shaped.source}, but '
            f'it has {size}')
    semantic = np.full(size, void_value, np.int64)
    if source.semantic is not None:
        semantic_path = source.semantic / Path(photo.file_name).with_suffix('.png')
        semantic = read_label_map(semantic_path)
        if semantic.shape != size:
            raise ValueError(
                f'Expected {semantic_path} to have the size {size} (height, width) of {path}, but it '
                f'has {semantic.shape}')
    try:
        semantic, numbers = draw_shapes(shaped.shapes, semantic, void_value, classes, rules)
        return _to_image(photo, semantic, numbers, classes, void_value)
    except ValueError as error:
        raise ValueError(f'Cannot convert {photo.file_name} of {shaped.source}: {error}') from None


def _convert_masks(source: AnnotationSource, classes: Classes, rules: DrawingRules, export: CvatMasks,
                   photo: NumberedPhoto) -> ConvertedImage:
    path = source.images / photo.file_name
    void_value = _free_value(classes)
    semantic, numbers = read_cvat_masks(export, photo.content, classes, void_value, rules.void_labels)
    size = read_photo_size(path)
    if semantic.shape != size:
        raise ValueError(
            f'Expected the masks of {photo.content} in {export.folder} to have the size {size} (height, '
            f'width) of {path}, but they have {semantic.shape}')
    return _to_image(photo, semantic, numbers, classes, void_value)


def _to_image(photo: NumberedPhoto, semantic: np.ndarray, numbers: np.ndarray, classes: Classes,
              void_value: int) -> ConvertedImage:
    with_void = classes._replace(void_values=[*classes.void_values, void_value])
    ids, labels, notes = combine_masks(semantic, numbers, with_void)
    png_name = Path(photo.file_name).with_suffix('.png').as_posix()
    return ConvertedImage(photo.image_id, photo.file_name, png_name, ids, labels, notes)


def _free_value(classes: Classes) -> int:
    """A value for unlabeled pixels that no class and no void value has."""
    return max([category['id'] for category in classes.categories] + classes.void_values) + 1
