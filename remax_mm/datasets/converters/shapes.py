"""Polygons and masks of annotation tools, and how they become one panoptic map."""
import math
from pathlib import Path
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from remax_mm.panoptic_format import list_some
from .coco_instances import decode_segmentation
from .convert_masks import Classes

CIRCLE_POINTS = 64
STUFF, UNLABELED, THINGS = range(3)
"""Layers from the bottom to the top; crowds and void shapes are unlabeled."""


class Shape(NamedTuple):
    """A region that an annotator drew.

    Attributes:
        where: Its place in the file, for error messages.
        label: Name of its class.
        segmentation: Polygons [x1, y1, x2, y2, ...] in pixels, an RLE as in COCO's JSON, or (H, W) bool.
        iscrowd: Whether it covers several objects of a thing class.
    """
    where: str
    label: str
    segmentation: Any
    iscrowd: bool = False


class ShapedPhoto(NamedTuple):
    """The shapes of a photo.

    Attributes:
        source: File of the annotation.
        file_name: Photo, relative to the folder of photos.
        size: Height and width that the annotation is for, None if the file does not say.
        shapes: In the order of the file.
    """
    source: Path
    file_name: str
    size: Optional[Tuple[int, int]]
    shapes: List[Shape]


class DrawingRules(NamedTuple):
    """How shapes become pixels.

    Attributes:
        void_labels: Labels whose shapes are unlabeled.
        smaller_on_top: Whether shapes of one layer may overlap, small ones over large ones. Otherwise that is
            an error.
        clip: Whether shapes are cut at the border of the image. Otherwise points outside are an error.
    """
    void_labels: Sequence[str] = ()
    smaller_on_top: bool = False
    clip: bool = False


class _Region(NamedTuple):
    """Pixels of a shape: rows and columns of its bounding box, and a mask of this size."""
    window: Tuple[slice, slice]
    mask: np.ndarray


def check_labels_known(photos: Sequence[ShapedPhoto], classes: Classes, rules: DrawingRules) -> None:
    """
    Raises:
        ValueError: a shape has a label that is neither a class nor void.
    """
    known = {category['name'] for category in classes.categories}.union(rules.void_labels)
    source_of = {shape.label: photo.source for photo in photos for shape in photo.shapes}
    unknown = sorted(set(source_of) - known)
    if unknown:
        raise ValueError(
            f'Expected the labels of the class file, {list_some(known)}, but there are also '
            f'{list_some(unknown)}, the first of them in {source_of[unknown[0]]}: add them to the '
            'class file, or to --void')


def draw_shapes(shapes: Sequence[Shape], semantic: np.ndarray, void_value: int, classes: Classes,
                rules: DrawingRules) -> Tuple[np.ndarray, np.ndarray]:
    """Draw shapes over a semantic map: stuff, then crowds and void shapes, then things; large shapes of a
    layer before small ones.

    Args:
        shapes: Of one image; their labels are known.
        semantic: (H, W) class values below the shapes.
        void_value: Value of unlabeled pixels.

    Returns:
        Class values and instance numbers, both (H, W); 0 is no instance.

    Raises:
        ValueError: a shape has no pixel, or points outside of the image, or shapes of one layer overlap.
    """
    semantic, numbers = semantic.astype(np.int64), np.zeros(semantic.shape, np.int64)
    value_of = {category['name']: category['id'] for category in classes.categories}
    regions = [_crop(_rasterize(shape, semantic.shape, rules.clip)) for shape in shapes]
    layers = [_layer_of(shape, value_of, classes.is_thing) for shape in shapes]
    if not rules.smaller_on_top:
        _check_overlap(shapes, regions, layers, semantic.shape)

    order = sorted(range(len(shapes)), key=lambda index: (layers[index], -int(regions[index].mask.sum())))
    for number, index in enumerate(order, start=1):
        window, mask = regions[index]
        semantic[window][mask] = value_of.get(shapes[index].label, void_value)
        numbers[window][mask] = number if layers[index] == THINGS else 0
    return semantic, numbers


def _layer_of(shape: Shape, value_of: Mapping[str, int], is_thing: Mapping[int, bool]) -> int:
    if shape.label not in value_of:
        return UNLABELED
    if not is_thing[value_of[shape.label]]:
        return STUFF
    return UNLABELED if shape.iscrowd else THINGS


def _check_overlap(shapes: Sequence[Shape], regions: Sequence[_Region], layers: Sequence[int],
                   size: Tuple[int, ...]) -> None:
    """Raise ValueError if two things, or two regions of different stuff, share pixels."""
    for layer in (STUFF, THINGS):
        owners = np.full(size, -1, np.int32)
        for index, (window, mask) in enumerate(regions):
            if layers[index] != layer:
                continue
            for other in np.unique(owners[window][mask]).tolist():
                if other >= 0 and (layer == THINGS or shapes[index].label != shapes[other].label):
                    pixels = int((owners[window][mask] == other).sum())
                    raise ValueError(
                        f'Expected shapes without overlap, but {_describe(shapes[other])} and '
                        f'{_describe(shapes[index])} share {pixels} pixels; --overlap smaller draws the '
                        'smaller shape on top')
            owners[window][mask] = index


def _describe(shape: Shape) -> str:
    return f'{shape.where} ({shape.label})'


def _crop(mask: np.ndarray) -> _Region:
    """The bounding box of a mask, which may be one of many of a large photo."""
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return _Region(window, mask[window].copy())


def _rasterize(shape: Shape, size: Tuple[int, ...], clip: bool) -> np.ndarray:
    """Pixels (H, W) bool of a shape."""
    height, width = size
    try:
        if isinstance(shape.segmentation, np.ndarray):
            mask = shape.segmentation
        elif isinstance(shape.segmentation, list):
            margin = _check_polygons(shape.segmentation, height, width, clip)
            moved = [[value + margin for value in polygon] for polygon in shape.segmentation]
            mask = decode_segmentation(moved, height + 2 * margin, width + 2 * margin)
            mask = mask[margin:margin + height, margin:margin + width]
        else:
            mask = decode_segmentation(shape.segmentation, height, width)
        if not mask.any():
            raise ValueError('Expected at least one pixel in the image, but there is none; remove the shape')
    except ValueError as error:
        raise ValueError(f'{_describe(shape)}: {error}') from None
    return mask


def _check_polygons(polygons: Sequence[Sequence[float]], height: int, width: int, clip: bool) -> int:
    """Pixels by which polygons leave the image, rounded up."""
    outside = 0.
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f'Expected at least three points x, y, but got {len(polygon)} numbers')
        for x, y in zip(polygon[::2], polygon[1::2]):
            beyond = max(-x, -y, x - width, y - height)
            if beyond > 0 and not clip:
                raise ValueError(f'Expected points inside of the image of {width} x {height} pixels, but got '
                                 f'({x:g}, {y:g}); --clip cuts shapes at the border of the image')
            outside = max(outside, beyond)
    if outside > height + width:
        raise ValueError(f'Expected points near the image of {width} x {height} pixels, but one is '
                         f'{outside:g} pixels outside')
    return math.ceil(outside)


def circle_polygon(x: float, y: float, radius_x: float, radius_y: float, angle: float = 0.) -> List[float]:
    """Polygon of an ellipse, rotated by an angle in radians."""
    turns = np.arange(CIRCLE_POINTS) * 2 * np.pi / CIRCLE_POINTS
    along, across = radius_x * np.cos(turns), radius_y * np.sin(turns)
    xs = x + along * np.cos(angle) - across * np.sin(angle)
    ys = y + along * np.sin(angle) + across * np.cos(angle)
    return np.stack([xs, ys], axis=1).ravel().tolist()


def box_polygon(left: float, top: float, right: float, bottom: float) -> List[float]:
    """Polygon of a box."""
    return [left, top, right, top, right, bottom, left, bottom]
