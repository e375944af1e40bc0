"""Places for the labels of segments: inside a segment, or beside it with a leader line, without overlap."""
from typing import List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np

MAX_COVER = 0.35
"""A label inside a segment covers at most this fraction of it."""
REACH = 5
"""A label beside a segment is at most this many of its heights away from the segment's thickest point."""


class SegmentMask(NamedTuple):
    """Pixels of a segment.

    Attributes:
        mask: (height, width) bool, cropped to the bounding box of the segment.
        left, top: Corner of the bounding box in the image.
    """
    mask: np.ndarray
    left: int
    top: int


class Label(NamedTuple):
    """Place of a label, in pixels.

    Attributes:
        left, top, width, height: The box of the label.
        anchor: (x, y) of the point of the segment at which the leader line ends, None inside the segment.
    """
    left: int
    top: int
    width: int
    height: int
    anchor: Optional[Tuple[int, int]] = None

    @property
    def area(self) -> Tuple[slice, slice]:
        """Rows and columns of the box."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def place_labels(segments: Sequence[SegmentMask], sizes: Sequence[Tuple[int, int]],
                 image_size: Tuple[int, int]) -> List[Optional[Label]]:
    """Find a place for the label of each segment.

    Large segments come first. A label goes where its segment is thickest, if it fits in there. Otherwise it
    goes to the nearest free place beside the segment, where it hides as little as possible of other narrow
    segments. Labels do not overlap.

    Args:
        segments: S segments with at least one pixel.
        sizes: (S,) width and height of the labels in pixels.
        image_size: Height and width of the image.

    Returns:
        (S,) labels, None if there is no place.
    """
    labels: List[Optional[Label]] = [None] * len(segments)
    taken = np.zeros(image_size, bool)
    narrow = np.zeros(image_size, np.float32)
    order = sorted(range(len(segments)), key=lambda index: -int(segments[index].mask.sum()))

    # Labels inside segments.
    for index in order:
        label = labels[index] = _place_inside(segments[index], sizes[index], taken)
        if label is None:
            narrow[_box_of(segments[index])][segments[index].mask] = 1
        else:
            taken[label.area] = True

    # Labels beside segments.
    for index in order:
        if labels[index] is None:
            label = labels[index] = _place_beside(segments[index], sizes[index], taken, narrow)
            if label is not None:
                taken[label.area] = True
    return labels


def _box_of(segment: SegmentMask) -> Tuple[slice, slice]:
    height, width = segment.mask.shape
    return slice(segment.top, segment.top + height), slice(segment.left, segment.left + width)


def _place_inside(segment: SegmentMask, size: Tuple[int, int], taken: np.ndarray) -> Optional[Label]:
    """The place with the greatest distance of its center to the border of the segment."""
    (width, height), area = size, int(segment.mask.sum())
    if width * height > MAX_COVER * area or height > segment.mask.shape[0] or width > segment.mask.shape[1]:
        return None
    free = segment.mask & ~taken[_box_of(segment)]
    fits = _box_sums(free.astype(np.float32), size) > width * height - 0.5
    if not fits.any():
        return None
    centers = (slice(height // 2, height // 2 + fits.shape[0]), slice(width // 2, width // 2 + fits.shape[1]))
    distance = np.where(fits, _distance_to_border(segment.mask)[centers], -1)
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    return Label(segment.left + int(column), segment.top + int(row), width, height)


def _place_beside(segment: SegmentMask, size: Tuple[int, int], taken: np.ndarray,
                  narrow: np.ndarray) -> Optional[Label]:
    """The free place near the thickest point of a segment with the least distance and hidden pixels."""
    (width, height), (image_height, image_width) = size, taken.shape
    distance = _distance_to_border(segment.mask)
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    x, y = segment.left + int(column), segment.top + int(row)

    # Top left corners of the boxes in reach, and the pixels of these boxes.
    reach = REACH * height + int(distance.max())
    left, top = max(x - reach - width, 0), max(y - reach - height, 0)
    right, bottom = min(x + reach + width, image_width), min(y + reach + height, image_height)
    if right - left < width or bottom - top < height:
        return None
    window = slice(top, bottom), slice(left, right)
    blocked = taken.copy()
    blocked[_box_of(segment)] |= segment.mask
    is_free = _box_sums(blocked[window].astype(np.float32), size) < 0.5
    if not is_free.any():
        return None
    hidden = _box_sums(narrow[window], size) / (width * height)

    # Distance of the anchor to the nearest pixel of each box.
    lefts, tops = np.arange(left, right - width + 1), np.arange(top, bottom - height + 1)
    gap_x = np.maximum(np.maximum(lefts - x, x - (lefts + width - 1)), 0)
    gap_y = np.maximum(np.maximum(tops - y, y - (tops + height - 1)), 0)
    # A hidden segment costs as much as a long leader line; ties go to boxes that are centered on the anchor.
    off_center = np.abs(lefts + width / 2 - x)[None] / width + np.abs(tops + height / 2 - y)[:, None] / height
    cost = np.hypot(gap_x[None], gap_y[:, None]) + REACH * height * hidden + 0.1 * off_center
    cost[~is_free] = np.inf
    row, column = np.unravel_index(int(cost.argmin()), cost.shape)
    return Label(int(lefts[column]), int(tops[row]), width, height, (x, y))


def _distance_to_border(mask: np.ndarray) -> np.ndarray:
    """Distance to the nearest pixel outside of a mask; pixels outside the bounding box count as outside."""
    return cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]


def _box_sums(values: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    """Sums over all boxes (width, height) inside of a map, by their top left corner."""
    width, height = size
    sums = cv2.integral(values)
    return sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
