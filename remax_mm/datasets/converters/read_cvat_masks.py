"""CVAT's export "Segmentation mask 1.1": a color per class and a color per object.

Format: https://docs.cvat.ai/docs/dataset_management/formats/format-smask
"""
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from remax_mm.panoptic_format import list_some
from remax_mm.panoptic_format.image_files import open_image
from .convert_masks import Classes

BLACK, BACKGROUND = 0, 'background'


class CvatMasks(NamedTuple):
    """An export.

    Attributes:
        folder: Folder with ``SegmentationClass`` and ``SegmentationObject``.
        names: Photos without their endings.
        label_of: Label of each color, 65536 * red + 256 * green + blue.
    """
    folder: Path
    names: List[str]
    label_of: Dict[int, str]


def read_cvat_export(folder: Path) -> CvatMasks:
    """Read the list of photos and the colors of an unpacked export.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a line of ``labelmap.txt`` has another format, or there is no photo.
    """
    label_of: Dict[int, str] = {}
    path = folder / 'labelmap.txt'
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
        if not line.strip() or line.startswith('#'):
            continue
        label, *rest = line.split(':')
        try:
            red, green, blue = (int(channel) for channel in rest[0].split(','))
        except (ValueError, IndexError):
            raise ValueError(f'Expected a line `label:red,green,blue::` in {path}, but line {number} is '
                             f'{line!r}') from None
        label_of[65536 * red + 256 * green + blue] = label.strip()

    lists = sorted((folder / 'ImageSets' / 'Segmentation').glob('*.txt'))
    names = sorted({name.strip() for file in lists for name in file.read_text().splitlines() if name.strip()})
    if not names:
        raise ValueError(
            f'Expected names of photos in {folder}/ImageSets/Segmentation/*.txt, but there is none')
    return CvatMasks(folder, names, label_of)


def read_cvat_masks(masks: CvatMasks, name: str, classes: Classes, void_value: int,
                    void_labels: Sequence[str]) -> Tuple[np.ndarray, np.ndarray]:
    """Class values and instance numbers of a photo, both (H, W).

    Raises:
        FileNotFoundError: a mask is missing.
        ValueError: a color has no label, a label is unknown, or the two masks have different sizes.
    """
    path = masks.folder / 'SegmentationClass' / f'{name}.png'
    object_path = masks.folder / 'SegmentationObject' / f'{name}.png'
    colors, objects = _read_colors(path), _read_colors(object_path)
    if colors.shape != objects.shape:
        raise ValueError(f'Expected {object_path} to have the size {colors.shape} (height, width) of {path}, '
                         f'but it has {objects.shape}')
    value_of = {category['name']: category['id'] for category in classes.categories}
    # Pixels without annotation are black.
    label_of = {BLACK: BACKGROUND, **masks.label_of}
    value_of = {**dict.fromkeys([BACKGROUND, *void_labels], void_value), **value_of}

    found, index = np.unique(colors, return_inverse=True)
    unknown = [_as_rgb(color) for color in found.tolist() if color not in label_of]
    if unknown:
        raise ValueError(f'Expected the colors of {masks.folder}/labelmap.txt in {path}, but got also '
                         f'{list_some(unknown)}')
    labels = [label_of[color] for color in found.tolist()]
    missing = set(labels) - set(value_of)
    if missing:
        raise ValueError(
            f'Expected the labels of the class file, but there are also {list_some(missing)} in {path}: '
            'add them to the class file, or to --void')
    values = np.array([value_of[label] for label in labels], np.int64)
    return values[index.reshape(colors.shape)], objects


def _read_colors(path: Path) -> np.ndarray:
    """(H, W) int64, 65536 * red + 256 * green + blue, of an image in colors or with a palette."""
    with open_image(path, 'a mask') as image:
        channels = np.asarray(image.convert('RGB')).astype(np.int64)
    return channels[..., 0] * 65536 + channels[..., 1] * 256 + channels[..., 2]


def _as_rgb(color: int) -> Tuple[int, int, int]:
    return color >> 16, color >> 8 & 255, color & 255
