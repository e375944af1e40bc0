"""Segment index maps: every pixel has a small index into a table of segments, not the id of the PNG."""
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from scipy.ndimage import find_objects

from .segment_ids import VOID_ID


class SegmentIndex(NamedTuple):
    """An index map, and how it agrees with its table of S segments.

    Attributes:
        segment_map: (H, W) in [0, S]: 0 is void, i >= 1 is row i - 1 of the table. uint8 up to 255 segments,
            uint16 up to 65535.
        unknown_ids: Ids of the map that are not in the table; their pixels are void.
        unseen_ids: Ids of the table that are not in the map.
        areas: (S,) int64, pixels of each row of the table.
    """
    segment_map: np.ndarray
    unknown_ids: List[int]
    unseen_ids: List[int]
    areas: np.ndarray


def index_segments(ids: np.ndarray, table_ids: Sequence[int], void_ids: Sequence[int] = ()) -> SegmentIndex:
    """Replace segment ids by indices into a table.

    Args:
        ids: (H, W) int32, 0 where unlabeled.
        table_ids: S different ids; row i of the table becomes index i + 1.
        void_ids: Other known ids, such as crowd regions; they become 0, like unlabeled pixels.
    """
    known_ids = np.array([VOID_ID, *void_ids, *table_ids], np.int64)
    index_of_known = np.zeros(len(known_ids), np.min_scalar_type(len(table_ids)))
    index_of_known[1 + len(void_ids):] = np.arange(1, len(table_ids) + 1)

    run_ids, run_lengths = _find_runs(ids)
    order = np.argsort(known_ids)
    position = np.searchsorted(known_ids, run_ids, sorter=order)
    nearest = order[np.minimum(position, len(known_ids) - 1)]
    is_known = known_ids[nearest] == run_ids
    run_index = np.where(is_known, index_of_known[nearest], 0).astype(index_of_known.dtype)

    areas = np.bincount(run_index, weights=run_lengths, minlength=len(table_ids) + 1)[1:]
    return SegmentIndex(
        segment_map=np.repeat(run_index, run_lengths).reshape(ids.shape),
        unknown_ids=np.unique(run_ids[~is_known]).tolist(),
        unseen_ids=np.setdiff1d(known_ids[1:], run_ids).tolist(),
        areas=areas.astype(np.int64))


def number_keys(keys: np.ndarray) -> Tuple[np.ndarray, List[int]]:
    """Number the different keys of a map from 1, in ascending order.

    Args:
        keys: (H, W) non-negative integers, 0 is unlabeled.

    Returns:
        (H, W) int32 ids in [0, S], 0 where the key is 0, and the keys of the ids 1..S.
    """
    run_keys, run_lengths = _find_runs(keys)
    values, value_of_run = np.unique(run_keys, return_inverse=True)
    is_labeled = values > 0
    run_ids = np.cumsum(is_labeled, dtype=np.int32)[value_of_run]
    return np.repeat(run_ids, run_lengths).reshape(keys.shape), values[is_labeled].tolist()


def find_boxes(segment_map: np.ndarray, num_segments: int) -> List[Optional[List[int]]]:
    """Bounding boxes (x, y, width, height) in pixels of the indices 1..S of a map; None without a pixel.

    Args:
        segment_map: (H, W) integers in [0, S].
        num_segments: S.
    """

    def to_box(rows: slice, columns: slice) -> List[int]:
        return [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]

    return [found and to_box(*found) for found in find_objects(segment_map, num_segments)]


def _find_runs(values: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Values and lengths of the runs of equal values along the rows of a map.

    Segments consist of long runs, so work per run costs far less than work per pixel.
    """
    flat = values.ravel()
    starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    return flat[starts], np.diff(starts, append=len(flat))
