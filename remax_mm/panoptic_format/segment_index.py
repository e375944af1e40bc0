"""Maps of segment indices: small consecutive numbers in place of the ids of a panoptic PNG."""
from typing import List, NamedTuple, Sequence, Tuple

import numpy as np


class SegmentIndex(NamedTuple):
    """A map of segment ids, turned into indices of a table.

    Attributes:
        index: (H, W) in [0, S], 0 is void; uint8 up to 255 segments, otherwise uint16.
        unknown_ids: Ids of the map that the table lacks; their pixels are void.
        unseen_ids: Ids of the table that the map lacks.
        areas: (S,) int64, pixels of each row of the table.
    """
    index: np.ndarray
    unknown_ids: List[int]
    unseen_ids: List[int]
    areas: np.ndarray


def index_segments(ids: np.ndarray, table_ids: Sequence[int], void_ids: Sequence[int] = ()) -> SegmentIndex:
    """Replace segment ids by indices into a table, with one look-up for the whole map.

    Args:
        ids: (H, W) int32, 0 where unlabeled.
        table_ids: S ids, none twice; row i of the table becomes index i + 1.
        void_ids: Further known ids, which become 0 as unlabeled pixels do.
    """
    known = np.array([0, *void_ids, *table_ids], np.int64)
    index_of_known = np.zeros(len(known), np.uint8 if len(table_ids) < 256 else np.uint16)
    index_of_known[1 + len(void_ids):] = np.arange(1, len(table_ids) + 1)

    # Segments are runs of equal ids along the rows, so that one pixel per run is looked up.
    flat = ids.ravel()
    starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    run_ids = flat[starts]
    order = np.argsort(known)
    place = np.searchsorted(known[order], run_ids)
    row = order[np.minimum(place, len(known) - 1)]

    is_known = known[row] == run_ids
    run_index = np.where(is_known, index_of_known[row], 0).astype(index_of_known.dtype)
    run_length = np.diff(starts, append=len(flat))
    areas = np.bincount(run_index, weights=run_length, minlength=len(table_ids) + 1)[1:]
    return SegmentIndex(
        index=np.repeat(run_index, run_length).reshape(ids.shape),
        unknown_ids=np.unique(run_ids[~is_known]).tolist(),
        unseen_ids=np.setdiff1d(known[1:], run_ids).tolist(),
        areas=areas.astype(np.int64))


def number_keys(keys: np.ndarray) -> Tuple[np.ndarray, List[int]]:
    """Number the different keys of a map from 1 on, in ascending order.

    Args:
        keys: (H, W) non-negative integers, 0 is unlabeled.

    Returns:
        (H, W) int32 ids in [0, S], 0 where the key is 0, and the keys of the ids 1..S.
    """
    # Only one pixel of each run of equal keys is sorted.
    flat = keys.ravel()
    starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    values, index = np.unique(flat[starts], return_inverse=True)
    run_ids = np.cumsum(values > 0, dtype=np.int32)[index]
    ids = np.repeat(run_ids, np.diff(starts, append=len(flat)))
    return ids.reshape(keys.shape), values[values > 0].tolist()
