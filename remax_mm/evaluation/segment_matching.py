"""Which predicted segment is which annotated one, by the rules of panopticapi.

Rules: cocodataset/panopticapi, panopticapi/evaluation.py (`pq_compute_single_core`); Kirillov et al.,
Panoptic Segmentation, CVPR 2019, section 4.
"""
from typing import Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from remax_mm.panoptic_format import VOID_ID

Overlaps = Mapping[Tuple[int, int], int]
"""Pixels that an annotated id and a predicted value share, of every pair that occurs."""


class MatchedPair(NamedTuple):
    """An annotated segment that was found."""
    segment_id: int
    value: int  # of the predicted segment
    iou: float  # in (0.5, 1]


class SegmentMatching(NamedTuple):
    """The segments of one image after matching.

    Attributes:
        pairs: True positives.
        missed: Ids of the annotated segments without a match (false negatives), no crowd among them.
        extra: Values of the predicted segments without a match (false positives) that nothing forgives.
    """
    pairs: List[MatchedPair]
    missed: List[int]
    extra: List[int]


def joint_histogram(first: np.ndarray, second: np.ndarray) -> Dict[Tuple[int, int], int]:
    """Number of pixels of each pair of values of two (H, W) maps of non-negative integers.

    Only runs of equal pairs along the flattened maps are sorted, not every pixel: segments have long runs.

    Raises:
        ValueError: a value is negative.
    """
    first, second = first.ravel(), second.ravel()
    if first.size == 0:
        return {}
    changes = first[1:] != first[:-1]
    changes |= second[1:] != second[:-1]
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=first.size)

    first, second = first[starts].astype(np.int64), second[starts].astype(np.int64)
    if min(first.min(), second.min()) < 0:
        raise ValueError(f'Expected non-negative ids, but got {first.min()} and {second.min()}')
    base = int(second.max()) + 1
    keys = first * base + second
    # A search among the few pairs costs less than the inverse of `np.unique`, which sorts indices.
    pairs = np.unique(keys)
    pixels = np.bincount(np.searchsorted(pairs, keys), weights=lengths).astype(np.int64)
    return {(pair // base, pair % base): number for pair, number in zip(pairs.tolist(), pixels.tolist())}


def segment_areas(overlaps: Overlaps) -> Tuple[Dict[int, int], Dict[int, int]]:
    """Pixels of each value of the first and of the second map of a joint histogram."""
    first: Dict[int, int] = {}
    second: Dict[int, int] = {}
    for (one, other), pixels in overlaps.items():
        first[one] = first.get(one, 0) + pixels
        second[other] = second.get(other, 0) + pixels
    return first, second


def segment_ious(overlaps: Overlaps) -> Dict[Tuple[int, int], float]:
    """IoU of each annotated id and predicted value that overlap, whatever their classes.

    Unlabeled pixels are cut from the predicted segment; crowd regions are not.
    """
    annotated_area, predicted_area = segment_areas(overlaps)
    ious = {}
    for (segment_id, value), intersection in overlaps.items():
        if segment_id != VOID_ID:
            unlabeled = overlaps.get((VOID_ID, value), 0)
            union = predicted_area[value] + annotated_area[segment_id] - intersection - unlabeled
            ious[segment_id, value] = intersection / union
    return ious


def match_segments(overlaps: Overlaps, segments: Sequence[Mapping],
                   label_of: Mapping[int, int]) -> SegmentMatching:
    """Match the segments of one image.

    A predicted and an annotated segment match iff their class is the same, the annotated one is no crowd, and
    their IoU exceeds 0.5. An unmatched prediction is forgiven iff more than half of it lies on unlabeled
    pixels and on the crowd region of its own class.

    Args:
        overlaps: Joint histogram of the annotated ids, 0 unlabeled, and the predicted values.
        segments: Of each annotated segment ``id``, ``category`` and ``iscrowd``.
        label_of: Class of each predicted value; values without one are void.
    """
    segment_of = {segment['id']: segment for segment in segments}

    # IoU > 0.5 of disjoint segments makes the pairs unique.
    pairs = []
    for (segment_id, value), iou in segment_ious(overlaps).items():
        segment = segment_of.get(segment_id)
        if segment is None or segment['iscrowd'] or segment['category'] != label_of.get(value):
            continue
        if iou > 0.5:
            pairs.append(MatchedPair(segment_id, value, iou))

    found = {pair.segment_id for pair in pairs}
    missed = [segment['id'] for segment in segments if segment['id'] not in found and not segment['iscrowd']]

    # Of several crowd regions of a class, panopticapi knows the last.
    crowd_id = {segment['category']: segment['id'] for segment in segments if segment['iscrowd']}
    predicted_area = segment_areas(overlaps)[1]
    taken = {pair.value for pair in pairs}
    extra = []
    for value, label in label_of.items():
        ignored = overlaps.get((VOID_ID, value), 0)
        if label in crowd_id:
            ignored += overlaps.get((crowd_id[label], value), 0)
        if value not in taken and ignored / predicted_area[value] <= 0.5:
            extra.append(value)
    return SegmentMatching(pairs, missed, extra)
