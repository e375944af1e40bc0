"""Drawing of a panoptic map on its image with NumPy and OpenCV."""
from typing import Mapping, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np
from mmdet.evaluation import INSTANCE_OFFSET
from scipy.ndimage import find_objects

from .colors import Color, class_colors, shade
from .place_labels import Label, SegmentMask, place_labels

BORDER_COLOR = (255, 255, 255)
VOID_COLORS = ((70, 70, 70), (190, 190, 190))
"""The two grays of the stripes on void pixels."""
FONT = cv2.FONT_HERSHEY_SIMPLEX
NAME_SUFFIXES = ('-merged', '-other', '-stuff')
"""Endings of COCO's stuff names that say how COCO merged classes."""


class TextStyle(NamedTuple):
    """Size of the text, and pixels between the text and the border of its box."""
    scale: float
    thickness: int
    margin: int


def draw_panoptic(image: np.ndarray,
                  panoptic_map: np.ndarray,
                  classes: Sequence[str],
                  palette: Optional[Sequence[Color]] = None,
                  alpha: float = 0.6,
                  scores: Optional[Mapping[int, float]] = None) -> np.ndarray:
    """Color, outline and label the segments of an image.

    A label is the name of the class (see :func:`short_name`), for a thing the number of the instance in the
    map, and the score: ``person #3 0.97``. It is left out if :func:`place_labels` finds no place for it. Void
    pixels are hatched.

    Args:
        image: (H, W, 3) uint8, RGB.
        panoptic_map: (H, W) integers label + 1000 * instance. Any value without a label in [0, K) is void.
        classes: Names of the K classes.
        palette: RGB colors of the K classes in [0, 255]; None uses :func:`spread_colors`.
        alpha: Weight of the color in [0, 1].
        scores: Score in [0, 1] of values of the map; None and missing values are not written.

    Returns:
        (H, W, 3) uint8, RGB. ``image`` is not changed.

    Raises:
        ValueError: Image and map differ in size, or the palette has fewer colors than there are classes.
    """
    if image.shape[:2] != panoptic_map.shape:
        raise ValueError(
            f'Expected a map of the size of the image {image.shape[:2]}, but got {panoptic_map.shape}')
    palette = class_colors(dict(classes=classes, palette=palette))
    if panoptic_map.size == 0:
        return image.copy()

    # Number the segments from 1 to S; void is 0.
    values, index = np.unique(panoptic_map, return_inverse=True)
    is_segment = (values >= 0) & (values % INSTANCE_OFFSET < len(classes))
    numbers = np.where(is_segment, np.cumsum(is_segment), 0).astype(np.int32)
    numbers = numbers[index.reshape(panoptic_map.shape)]
    segment_values = values[is_segment].tolist()

    # Color and outline the segments, and hatch void.
    colors = [shade(palette[value % INSTANCE_OFFSET], value // INSTANCE_OFFSET) for value in segment_values]
    tint = np.array([VOID_COLORS[0], *colors], dtype=np.float32)[numbers]
    tint[(numbers == 0) & _stripes(numbers.shape)] = VOID_COLORS[1]
    drawn = np.rint(image * (1 - alpha) + tint * alpha).astype(np.uint8, order='C')
    drawn[_borders(numbers)] = BORDER_COLOR

    # Write the labels over all leader lines.
    style = _text_style(numbers.shape)
    texts = [_describe(value, classes, scores or {}) for value in segment_values]
    labels = place_labels(
        _crop_segments(numbers), [_label_size(text, style) for text in texts], numbers.shape)
    for label in labels:
        _draw_leader(drawn, label)
    for label, text, color in zip(labels, texts, colors):
        _write_label(drawn, label, text, color, style)
    return drawn


def short_name(name: str) -> str:
    """Name of a class without the endings of COCO's merged classes and without ADE20K's synonyms:
    ``wall-other-merged`` is ``wall``, and ``signboard, sign`` is ``signboard``."""
    name = name.split(', ')[0]
    while name.endswith(NAME_SUFFIXES):
        name = name.rpartition('-')[0]
    return name


def _describe(value: int, classes: Sequence[str], scores: Mapping[int, float]) -> str:
    """Text of a label."""
    instance, score = value // INSTANCE_OFFSET, scores.get(value)
    parts = [short_name(classes[value % INSTANCE_OFFSET])]
    if instance > 0:
        parts.append(f'#{instance}')
    if score is not None:
        parts.append(f'{score:.2f}')
    return ' '.join(parts)


def _stripes(size: Tuple[int, ...]) -> np.ndarray:
    """Diagonal stripes, (H, W) bool; the larger the image, the wider."""
    height, width = size
    stripe = max(2, min(height, width) // 120)
    diagonal = np.arange(height)[:, None] + np.arange(width)
    return diagonal // stripe % 4 == 0


def _borders(numbers: np.ndarray) -> np.ndarray:
    """Mark the pixels whose right or lower neighbor belongs to another segment: (H, W) bool."""
    borders = np.zeros(numbers.shape, dtype=bool)
    borders[:, :-1] |= numbers[:, 1:] != numbers[:, :-1]
    borders[:-1] |= numbers[1:] != numbers[:-1]
    return borders


def _crop_segments(numbers: np.ndarray) -> Sequence[SegmentMask]:
    """Crop the masks of the segments 1 to S to their bounding boxes."""
    return [
        SegmentMask(numbers[rows, columns] == number, columns.start, rows.start)
        for number, (rows, columns) in enumerate(find_objects(numbers), start=1)
    ]


def _text_style(size: Tuple[int, ...]) -> TextStyle:
    scale = min(max(min(size) / 1000, 0.38), 1.2)
    return TextStyle(scale, 1 if scale < 0.8 else 2, 2 if scale < 0.8 else 4)


def _label_size(text: str, style: TextStyle) -> Tuple[int, int]:
    """Width and height of the box of a text."""
    (width, height), base = cv2.getTextSize(text, FONT, style.scale, style.thickness)
    return width + 2 * style.margin, height + base + 2 * style.margin


def _draw_leader(image: np.ndarray, label: Optional[Label]) -> None:
    """Draw the line from the box of a label to its segment."""
    if label is None or label.anchor is None:
        return
    x, y = label.anchor
    start = (int(np.clip(x, label.left, label.left + label.width - 1)),
             int(np.clip(y, label.top, label.top + label.height - 1)))
    for color, thickness in (((0, 0, 0), 3), (BORDER_COLOR, 1)):
        cv2.line(image, start, (x, y), color, thickness, cv2.LINE_AA)
        cv2.circle(image, (x, y), thickness, color, cv2.FILLED, cv2.LINE_AA)


def _write_label(image: np.ndarray, label: Optional[Label], text: str, color: Color,
                 style: TextStyle) -> None:
    """Write a text on a dark shade of the color of its segment."""
    if label is None:
        return
    image[label.area] = [channel // 3 for channel in color]
    _, base = cv2.getTextSize(text, FONT, style.scale, style.thickness)
    origin = label.left + style.margin, label.top + label.height - style.margin - base
    cv2.putText(image, text, origin, FONT, style.scale, BORDER_COLOR, style.thickness, cv2.LINE_AA)
