"""One panoptic map from those of overlapping tiles.

Where tiles overlap, each speaks for the pixels on its side of the middle, away from its own border. Stuff
has no instances that would need joining. Things of one class are one if they agree in what both tiles see:
by their IoU there, as ViP-DeepLab joins the things of two frames (deeplab2
model/post_processor/vip_deeplab.py). From a threshold of 0.5 on, a thing agrees with at most one thing of a
neighbor, so that two things that touch stay two.
"""
from collections import Counter
from typing import Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from mmdet.evaluation import INSTANCE_OFFSET
from scipy.cluster.hierarchy import DisjointSet


class Span(NamedTuple):
    """A tile along one axis, in pixels; ends are exclusive.

    Attributes:
        start, stop: what the tile sees.
        own_start, own_stop: what it speaks for; the own parts of all tiles make up the axis.
    """
    start: int
    stop: int
    own_start: int
    own_stop: int


class Window(NamedTuple):
    """Where a tile lies in the image."""
    rows: Span
    cols: Span


class TilePrediction(NamedTuple):
    """The panoptic map of one tile.

    Attributes:
        window: where it lies.
        panoptic_map: (h, w) integers, label + 1000 * instance, stuff with instance 0, void K.
        scores: of each value of the map but void, in [0, 1]; None where the model gives none.
    """
    window: Window
    panoptic_map: np.ndarray
    scores: Optional[Mapping[int, float]]


class StitchedSegments(NamedTuple):
    """The panoptic map of a whole image.

    Attributes:
        panoptic_map: (H, W) int32, encoded as a tile's; instances are numbered from 1.
        scores: of each value of the map but void: the mean over its pixels. None where a tile has none.
    """
    panoptic_map: np.ndarray
    scores: Optional[Dict[int, float]]


class VisiblePart(NamedTuple):
    """A segment of one tile in the pixels for which the tile speaks.

    Attributes:
        value: in the numbers that are unique over tiles.
        area: in pixels.
        score: None where the model gives none.
    """
    value: int
    area: int
    score: Optional[float]


def split_axis(length: int, tile: int, overlap: int) -> List[Span]:
    """The fewest tiles that cover an axis, evenly spread; a single one ends where a shorter axis ends.

    Args:
        length: of the axis.
        tile: length of each tile.
        overlap: least pixels that neighbors share.
    """
    if length <= tile:
        return [Span(0, length, 0, length)]
    steps = -(-(length - tile) // (tile - overlap))
    starts = [step * (length - tile) // steps for step in range(steps + 1)]
    seams = [0, *((before + tile + after) // 2 for before, after in zip(starts, starts[1:])), length]
    return [Span(start, start + tile, *own) for start, *own in zip(starts, seams, seams[1:])]


def plan_tiles(size: Sequence[int], tile_size: Sequence[int], overlap: int) -> List[Window]:
    """Windows of all tiles of an image, row by row.

    Args:
        size: (height, width) of the image.
        tile_size: (height, width) of a tile.
        overlap: see :func:`split_axis`, from 1 to half a tile.
    """
    if not 1 <= overlap <= min(tile_size) // 2:
        raise ValueError(f'Expected an overlap from 1 to {min(tile_size) // 2}, half the shorter side of a '
                         f'tile of {tuple(tile_size)} (height, width), but got {overlap}')
    rows, cols = (split_axis(length, tile, overlap) for length, tile in zip(size, tile_size))
    return [Window(row, col) for row in rows for col in cols]


def agreeing_things(first: np.ndarray, second: np.ndarray, iou_threshold: float) -> Iterator[Tuple[int, int]]:
    """Things of two maps that show the same: one class, and an IoU above the threshold.

    Args:
        first, second: (h, w) of the same pixels, label + 1000 * instance.

    Yields:
        Value in the first map and in the second.
    """
    # One key per pair of values
    base = int(second.max(initial=0)) + 1
    keys, shared = np.unique(first.astype(np.int64) * base + second, return_counts=True)
    pairs = list(zip((keys // base).tolist(), (keys % base).tolist(), shared.tolist()))
    first_area, second_area = Counter(), Counter()
    for one, other, pixels in pairs:
        first_area[one] += pixels
        second_area[other] += pixels

    for one, other, pixels in pairs:
        are_things = one >= INSTANCE_OFFSET and other >= INSTANCE_OFFSET
        if are_things and one % INSTANCE_OFFSET == other % INSTANCE_OFFSET:
            if pixels > iou_threshold * (first_area[one] + second_area[other] - pixels):
                yield one, other


def stitch_tiles(tiles: Iterable[TilePrediction],
                 size: Sequence[int],
                 num_classes: int,
                 iou_threshold: float = 0.5) -> StitchedSegments:
    """Stitch the tiles of an image, drawn one by one.

    Beside the map itself, the maps of a few rows of tiles are kept.

    Args:
        tiles: of :func:`plan_tiles`, in its order.
        size: (height, width) of the image.
        num_classes: K, the value of void.
        iou_threshold: what two things must exceed, where both tiles see, to be one; from 0.5 on.
    """
    panoptic_map = np.full(size, num_classes, np.int32)
    things = DisjointSet()
    visible: List[VisiblePart] = []
    neighbors: List[TilePrediction] = []
    for tile in tiles:
        # Tiles share no instance until things are seen to agree.
        tile, new_things = _number_instances(tile, first=len(things) + 1)
        for value in new_things:
            things.add(value)

        # Only tiles that reach this row, or a later one, can be overlapped any more.
        neighbors = [other for other in neighbors if other.window.rows.stop > tile.window.rows.start]
        for other in neighbors:
            for pair in agreeing_things(*_shared_pixels(other, tile), iou_threshold):
                things.merge(*pair)
        neighbors.append(tile)
        visible += _paste(panoptic_map, tile, num_classes)

    new_values = _join_values(visible, things)
    _relabel(panoptic_map, new_values)
    return StitchedSegments(panoptic_map, _mean_scores(visible, new_values))


def _number_instances(tile: TilePrediction, first: int) -> Tuple[TilePrediction, List[int]]:
    """The tile with the instances ``first``, ``first + 1``, ... for its own, and the values of its things."""
    values = np.flatnonzero(np.bincount(tile.panoptic_map.ravel()))
    things = values[values >= INSTANCE_OFFSET]
    new_things = things % INSTANCE_OFFSET + np.arange(first, first + len(things)) * INSTANCE_OFFSET
    new_values = np.arange(values.max() + 1, dtype=np.int32)
    new_values[things] = new_things

    scores = tile.scores
    if scores is not None:
        scores = {int(new_values[value]): score for value, score in scores.items()}
    return TilePrediction(tile.window, new_values[tile.panoptic_map], scores), new_things.tolist()


def _shared_pixels(one: TilePrediction, other: TilePrediction) -> List[np.ndarray]:
    """What both tiles see, as each sees it."""
    shared = [
        slice(max(a.start, b.start), max(min(a.stop, b.stop), a.start, b.start))
        for a, b in zip(one.window, other.window)
    ]
    return [_crop(tile, *shared) for tile in (one, other)]


def _crop(tile: TilePrediction, rows: slice, cols: slice) -> np.ndarray:
    """Rows and columns of the image, of one tile's map."""
    top, left = tile.window.rows.start, tile.window.cols.start
    return tile.panoptic_map[rows.start - top:rows.stop - top, cols.start - left:cols.stop - left]


def _paste(panoptic_map: np.ndarray, tile: TilePrediction, num_classes: int) -> List[VisiblePart]:
    """Write the tile's own part into the map of the image."""
    rows, cols = (slice(span.own_start, span.own_stop) for span in tile.window)
    panoptic_map[rows, cols] = own = _crop(tile, rows, cols)
    values, areas = np.unique(own, return_counts=True)
    return [
        VisiblePart(value, area, None if tile.scores is None else tile.scores[value])
        for value, area in zip(values.tolist(), areas.tolist()) if value != num_classes
    ]


def _join_values(visible: Sequence[VisiblePart], things: DisjointSet) -> Dict[int, int]:
    """The final value of each visible one: joined things share an instance, numbered from 1."""
    numbers: Dict[int, int] = {}
    new_values = {part.value: part.value for part in visible}
    for value in new_values:
        if value in things:
            number = numbers.setdefault(things[value], len(numbers) + 1)
            new_values[value] = value % INSTANCE_OFFSET + number * INSTANCE_OFFSET
    return new_values


def _relabel(panoptic_map: np.ndarray, new_values: Mapping[int, int]) -> None:
    """Replace the instances of a map in place, some rows at a time: a large map is not doubled."""
    new_instance = np.zeros(max(new_values, default=0) // INSTANCE_OFFSET + 1, np.int32)
    for value, new_value in new_values.items():
        new_instance[value // INSTANCE_OFFSET] = new_value // INSTANCE_OFFSET
    for start in range(0, len(panoptic_map), 256):
        rows = panoptic_map[start:start + 256]
        rows[:] = rows % INSTANCE_OFFSET + new_instance[rows // INSTANCE_OFFSET] * INSTANCE_OFFSET


def _mean_scores(visible: Sequence[VisiblePart], new_values: Mapping[int, int]) -> Optional[Dict[int, float]]:
    if any(part.score is None for part in visible):
        return None
    areas: Dict[int, int] = {}
    sums: Dict[int, float] = {}
    for value, area, score in visible:
        new_value = new_values[value]
        areas[new_value] = areas.get(new_value, 0) + area
        sums[new_value] = sums.get(new_value, 0.) + area * score
    return {value: sums[value] / areas[value] for value in areas}
