"""Drawing of a panoptic map on its image with NumPy and OpenCV."""
import colorsys
from typing import List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np
from mmdet.evaluation import INSTANCE_OFFSET
from scipy.ndimage import find_objects

Color = Tuple[int, int, int]

BORDER_COLOR = (255, 255, 255)
FONT = cv2.FONT_HERSHEY_SIMPLEX
GOLDEN_RATIO = 0.618033988749895


class _Segment(NamedTuple):
    label: int
    color: Color
    mask: np.ndarray  # (height, width) bool, cropped to the bounding box of the segment
    corner: Tuple[int, int]  # x, y of the bounding box


def draw_panoptic(image: np.ndarray,
                  panoptic_map: np.ndarray,
                  classes: Sequence[str],
                  palette: Optional[Sequence[Color]] = None,
                  alpha: float = 0.6) -> np.ndarray:
    """Color and outline the segments of an image, and write the class names on those that are large enough.

    Args:
        image: (H, W, 3) uint8, RGB.
        panoptic_map: (H, W) integers label + 1000 * instance. Any value without a label in [0, K) is void and
            is not drawn.
        classes: Names of the K classes.
        palette: RGB colors of the K classes in [0, 255]; None uses :func:`spread_colors`.
        alpha: Weight of the color in [0, 1].

    Returns:
        (H, W, 3) uint8, RGB. ``image`` is not changed.

    Raises:
        ValueError: Image and map differ in size, or the palette has fewer colors than there are classes.
    """
    if image.shape[:2] != panoptic_map.shape:
        raise ValueError(
            f'Expected a map of the size of the image {image.shape[:2]}, but got {panoptic_map.shape}')
    palette = spread_colors(len(classes)) if palette is None else palette
    if len(palette) < len(classes):
        raise ValueError(f'Expected a color for each of the {len(classes)} classes, but got {len(palette)}')
    if panoptic_map.size == 0:
        return image.copy()

    # Number the segments from 1 to S; void is 0.
    values, index = np.unique(panoptic_map, return_inverse=True)
    labels = values % INSTANCE_OFFSET
    is_segment = (values >= 0) & (labels < len(classes))
    numbers = np.where(is_segment, np.cumsum(is_segment), 0).astype(np.int32)
    numbers = numbers[index.reshape(panoptic_map.shape)]
    colors = [
        shade(palette[value % INSTANCE_OFFSET], value // INSTANCE_OFFSET)
        for value in values[is_segment].tolist()
    ]

    # Color and outline the segments.
    table = np.array([(0, 0, 0), *colors], dtype=np.float32)
    weight = np.where(numbers > 0, alpha, 0.)[..., None].astype(np.float32)
    drawn = np.rint(image * (1 - weight) + table[numbers] * weight).astype(np.uint8, order='C')
    drawn[_borders(numbers)] = BORDER_COLOR

    # Write the names, those of the largest segments last so that they stay readable.
    segments = _crop_segments(numbers, labels[is_segment].tolist(), colors)
    for segment in sorted(segments, key=lambda segment: int(segment.mask.sum())):
        _write_name(drawn, segment, classes[segment.label])
    return drawn


def spread_colors(number: int) -> List[Color]:
    """Return colors of different hue, in steps of the golden ratio: neighbors in the list differ clearly."""
    hues = (number * GOLDEN_RATIO % 1 for number in range(number))
    return [_to_rgb(hue, 0.45 + 0.15 * (step % 3), 0.75) for step, hue in enumerate(hues)]


def shade(color: Color, instance: int) -> Color:
    """Vary hue and lightness of the color of a class for one of its instances.

    Args:
        color: RGB in [0, 255].
        instance: Number of the instance; 0 returns ``color``.
    """
    red, green, blue = color
    if instance == 0:
        return int(red), int(green), int(blue)
    hue, lightness, saturation = colorsys.rgb_to_hls(red / 255, green / 255, blue / 255)
    hue_shift = 0.12 * (instance * GOLDEN_RATIO % 1 - 0.5)
    lightness_shift = 0.35 * (instance * GOLDEN_RATIO**2 * 5 % 1 - 0.5)
    return _to_rgb((hue + hue_shift) % 1, np.clip(lightness + lightness_shift, 0.25, 0.8),
                   max(saturation, 0.4))


def _to_rgb(hue: float, lightness: float, saturation: float) -> Color:
    red, green, blue = (int(round(255 * c)) for c in colorsys.hls_to_rgb(hue, float(lightness), saturation))
    return red, green, blue


def _borders(numbers: np.ndarray) -> np.ndarray:
    """Mark the pixels whose right or lower neighbor belongs to another segment: (H, W) bool."""
    borders = np.zeros(numbers.shape, dtype=bool)
    borders[:, :-1] |= numbers[:, 1:] != numbers[:, :-1]
    borders[:-1] |= numbers[1:] != numbers[:-1]
    return borders


def _crop_segments(numbers: np.ndarray, labels: Sequence[int], colors: Sequence[Color]) -> List[_Segment]:
    """Crop the masks of the segments 1 to S to their bounding boxes."""
    segments = []
    for number, (rows, columns) in enumerate(find_objects(numbers), start=1):
        mask = numbers[rows, columns] == number
        segments.append(_Segment(labels[number - 1], colors[number - 1], mask, (columns.start, rows.start)))
    return segments


def _write_name(image: np.ndarray, segment: _Segment, name: str) -> None:
    """Write the name into ``image`` where the segment is widest, if at least half of the text fits."""
    height, width = image.shape[:2]
    scale = min(max(min(height, width) / 900, 0.35), 1.2)
    thickness = 1 if scale < 0.8 else 2
    (text_width, text_height), base = cv2.getTextSize(name, FONT, scale, thickness)

    # Distance to the nearest pixel outside the segment; pixels outside the bounding box count as outside.
    distance = cv2.distanceTransform(np.pad(segment.mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    if distance[y, x] < text_height or segment.mask.shape[1] < text_width / 2:
        return
    left = int(np.clip(segment.corner[0] + x - text_width // 2, 0, max(width - text_width, 0)))
    bottom = int(
        np.clip(segment.corner[1] + y + text_height // 2, text_height, max(height - base, text_height)))

    top_left, bottom_right = (left - 2, bottom - text_height - 2), (left + text_width + 2, bottom + base)
    cv2.rectangle(image, top_left, bottom_right, tuple(channel // 3 for channel in segment.color), cv2.FILLED)
    cv2.putText(image, name, (left, bottom), FONT, scale, (255, 255, 255), thickness, cv2.LINE_AA)


def label_panels(panels: Sequence[Tuple[str, np.ndarray]]) -> np.ndarray:
    """Arrange images of the same size side by side, each below its title.

    Args:
        panels: Titles and images, (H, W, 3) uint8.

    Returns:
        (H + bar, sum of W + gaps, 3) uint8.
    """
    height, width = panels[0][1].shape[:2]
    scale = min(max(width / 640, 0.35), 1.)
    bar, gap = int(round(36 * scale)) + 4, 4
    columns = []
    for title, image in panels:
        header = np.full((bar, width, 3), 255, dtype=np.uint8)
        cv2.putText(header, title, (4, bar - int(round(12 * scale))), FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)
        columns += [np.concatenate([header, image]), np.full((bar + height, gap, 3), 255, dtype=np.uint8)]
    return np.concatenate(columns[:-1], axis=1)
