"""Stitch the panoptic maps of overlapping tiles to one map.

In an overlap, each tile provides the pixels on its side of the center line, away from its own border. Stuff
has no instances, so there is nothing to join. Things of one class are joined if their IoU in the common
pixels of both tiles exceeds a threshold, as ViP-DeepLab joins the things of two frames (deeplab2
model/post_processor/vip_deeplab.py). With a threshold of at least 0.5, a thing is joined with at most one
thing of a neighboring tile, so that two things that touch are not merged.
"""
from collections import Counter
from typing import Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from mmdet.evaluation import INSTANCE_OFFSET
from scipy.cluster.hierarchy import DisjointSet


class Span(NamedTuple):
    """Position of a tile along one axis, in pixels; ends are exclusive.

    Attributes:
        start, stop: pixels of the tile.
        own_start, own_stop: pixels that the tile provides to the stitched map; together, the own parts of all
            tiles cover each pixel once.
    """
    start: int
    stop: int
    own_start: int
    own_stop: int


class Window(NamedTuple):
    """Position of a tile in the image."""
    rows: Span
    cols: Span


class TilePrediction(NamedTuple):
    """The panoptic map of one tile.

    Attributes:
        window: position of the tile.
        panoptic_map: (h, w) integers, label + 1000 * instance; stuff has instance 0, void is K.
        scores: score in [0, 1] of each value of the map except void; None if the model returns no scores.
    """
    window: Window
    panoptic_map: np.ndarray
    scores: Optional[Mapping[int, float]]


class StitchedSegments(NamedTuple):
    """The panoptic map of a whole image.

    Attributes:
        panoptic_map: (H, W) int32, encoded like the map of a tile; instances are numbered from 1.
        scores: score of each value of the map except void, the mean over its pixels; None if a tile has no
            scores.
    """
    panoptic_map: np.ndarray
    scores: Optional[Dict[int, float]]


class VisiblePart(NamedTuple):
    """A segment of one tile within the tile's own part.

    Attributes:
        value: label + 1000 * instance, with instances that are unique over all tiles.
        area: in pixels.
        score: in [0, 1]; None if the model returns no scores.
    """
    value: int
    area: int
    score: Optional[float]


def split_axis(length: int, tile: int, overlap: int) -> List[Span]:
    """Cover an axis with the smallest number of evenly spaced tiles.

    The tile of an axis that is not longer than a tile ends with the axis.

    Args:
        length: length of the axis.
        tile: length of each tile.
        overlap: minimum overlap of neighboring tiles.
    """
    if length <= tile:
        return [Span(0, length, 0, length)]
    steps = -(-(length - tile) // (tile - overlap))
    starts = [step * (length - tile) // steps for step in range(steps + 1)]
    seams = [0, *((before + tile + after) // 2 for before, after in zip(starts, starts[1:])), length]
    return [Span(start, start + tile, *own) for start, *own in zip(starts, seams, seams[1:])]


def plan_tiles(size: Sequence[int], tile_size: Sequence[int], overlap: int) -> List[Window]:
    """Positions of all tiles of an image, row by row.

    Args:
        size: (height, width) of the image.
        tile_size: (height, width) of a tile.
        overlap: see :func:`split_axis`, from 1 to half a tile.

    Raises:
        ValueError: the overlap does not fit the tile.
    """
    if not 1 <= overlap <= min(tile_size) // 2:
        raise ValueError(f'Expected an overlap from 1 to {min(tile_size) // 2}, half the shorter side of a '
                         f'tile of {tuple(tile_size)} (height, width), but got {overlap}')
    rows, cols = (split_axis(length, tile, overlap) for length, tile in zip(size, tile_size))
    return [Window(row, col) for row in rows for col in cols]


def matching_things(first: np.ndarray, second: np.ndarray, iou_threshold: float) -> Iterator[Tuple[int, int]]:
    """Pairs of things of two maps that have the same class and an IoU above the threshold.

    Args:
        first, second: (h, w) maps of the same pixels, label + 1000 * instance.
        iou_threshold: see :func:`stitch_tiles`.

    Yields:
        Value in the first map and value in the second map.
    """
    # One key per pair of values
    base = int(second.max(initial=0)) + 1
    keys, counts = np.unique(first.astype(np.int64) * base + second, return_counts=True)
    pairs = list(zip((keys // base).tolist(), (keys % base).tolist(), counts.tolist()))
    first_area: Counter[int] = Counter()
    second_area: Counter[int] = Counter()
    for one, other, intersection in pairs:
        first_area[one] += intersection
        second_area[other] += intersection

    for one, other, intersection in pairs:
        are_things = one >= INSTANCE_OFFSET and other >= INSTANCE_OFFSET
        if are_things and one % INSTANCE_OFFSET == other % INSTANCE_OFFSET:
            if intersection > iou_threshold * (first_area[one] + second_area[other] - intersection):
                yield one, other


def stitch_tiles(tiles: Iterable[TilePrediction],
                 size: Sequence[int],
                 num_classes: int,
                 iou_threshold: float = 0.5) -> StitchedSegments:
    """Stitch the tiles of an image.

    Besides the map itself, only the maps of a few rows of tiles are in memory, if ``tiles`` is a generator.

    Args:
        tiles: predictions for the windows of :func:`plan_tiles`, in its order.
        size: (height, width) of the image.
        num_classes: K, the value of void.
        iou_threshold: two things are joined if their IoU in the common pixels of their tiles exceeds this
            value, at least 0.5.
    """
    panoptic_map = np.full(size, num_classes, np.int32)
    things = DisjointSet()
    visible: List[VisiblePart] = []
    neighbors: List[TilePrediction] = []
    for tile in tiles:
        # No two tiles have an instance in common until things are joined.
        tile, new_things = _number_instances(tile, first=len(things) + 1)
        for value in new_things:
            things.add(value)

        # Only tiles that reach this row or a later one can overlap with the remaining tiles.
        neighbors = [other for other in neighbors if other.window.rows.stop > tile.window.rows.start]
        for other in neighbors:
            for pair in matching_things(*_shared_pixels(other, tile), iou_threshold):
                things.merge(*pair)
        neighbors.append(tile)
        visible += _paste(panoptic_map, tile, num_classes)

    new_values = _join_values(visible, things)
    _relabel(panoptic_map, new_values)
    return StitchedSegments(panoptic_map, _mean_scores(visible, new_values))


def _number_instances(tile: TilePrediction, first: int) -> Tuple[TilePrediction, List[int]]:
    """Number the instances of a tile from ``first`` on; also return the new values of its things."""
    values = np.flatnonzero(np.bincount(tile.panoptic_map.ravel()))
    things = values[values >= INSTANCE_OFFSET]
    new_things = things % INSTANCE_OFFSET + np.arange(first, first + len(things)) * INSTANCE_OFFSET
    new_values = np.arange(values.max() + 1, dtype=np.int32)
    new_values[things] = new_things

    scores = tile.scores
    if scores is not None:
        scores = {int(new_values[value]): score for value, score in scores.items()}
    return TilePrediction(tile.window, new_values[tile.panoptic_map], scores), new_things.tolist()


def _shared_pixels(one: TilePrediction, other: TilePrediction) -> Tuple[np.ndarray, np.ndarray]:
    """The maps of two tiles in their common pixels, which may be none."""
    rows, cols = (slice(max(a.start, b.start), max(min(a.stop, b.stop), a.start, b.start))
                  for a, b in zip(one.window, other.window))
    return _crop(one, rows, cols), _crop(other, rows, cols)


def _crop(tile: TilePrediction, rows: slice, cols: slice) -> np.ndarray:
    """Part of a tile's map; ``rows`` and ``cols`` are in image coordinates."""
    top, left = tile.window.rows.start, tile.window.cols.start
    return tile.panoptic_map[rows.start - top:rows.stop - top, cols.start - left:cols.stop - left]


def _paste(panoptic_map: np.ndarray, tile: TilePrediction, num_classes: int) -> List[VisiblePart]:
    """Write the tile's own part into the map of the image and return its segments."""
    rows, cols = (slice(span.own_start, span.own_stop) for span in tile.window)
    panoptic_map[rows, cols] = own = _crop(tile, rows, cols)
    values, areas = np.unique(own, return_counts=True)
    return [
        VisiblePart(value, area, None if tile.scores is None else tile.scores[value])
        for value, area in zip(values.tolist(), areas.tolist()) if value != num_classes
    ]


def _join_values(visible: Sequence[VisiblePart], things: DisjointSet) -> Dict[int, int]:
    """New value of each visible value: joined things have one instance; instances are numbered from 1."""
    numbers: Dict[int, int] = {}
    new_values = {part.value: part.value for part in visible}
    for value in new_values:
        if value in things:
            number = numbers.setdefault(things[value], len(numbers) + 1)
            new_values[value] = value % INSTANCE_OFFSET + number * INSTANCE_OFFSET
    return new_values


def _relabel(panoptic_map: np.ndarray, new_values: Mapping[int, int]) -> None:
    """Replace the instances of a map in place, in blocks of rows to save memory."""
    new_instance = np.zeros(max(new_values, default=0) // INSTANCE_OFFSET + 1, np.int32)
    for value, new_value in new_values.items():
        new_instance[value // INSTANCE_OFFSET] = new_value // INSTANCE_OFFSET
    for start in range(0, len(panoptic_map), 256):
        rows = panoptic_map[start:start + 256]
        rows[:] = rows % INSTANCE_OFFSET + new_instance[rows // INSTANCE_OFFSET] * INSTANCE_OFFSET


def _mean_scores(visible: Sequence[VisiblePart], new_values: Mapping[int, int]) -> Optional[Dict[int, float]]:
    """Mean score over the pixels of each new value; None if a part has no score."""
    areas: Dict[int, int] = {}
    sums: Dict[int, float] = {}
    for value, area, score in visible:
        if score is None:
            return None
        new_value = new_values[value]
        areas[new_value] = areas.get(new_value, 0) + area
        sums[new_value] = sums.get(new_value, 0.) + area * score
    return {value: sums[value] / areas[value] for value in areas}
