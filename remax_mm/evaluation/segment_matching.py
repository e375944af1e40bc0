"""Matching of predicted and annotated segments by the rules of panopticapi.

Rules: cocodataset/panopticapi, panopticapi/evaluation.py (`pq_compute_single_core`); Kirillov et al.,
Panoptic Segmentation, CVPR 2019, section 4.
"""
from typing import Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from remax_mm.panoptic_format import VOID_ID

Overlaps = Mapping[Tuple[int, int], int]
"""Number of pixels that an annotated id and a predicted id share, for each pair that occurs."""


class MatchedPair(NamedTuple):
    """An annotated segment and the predicted segment that matches it; ``iou`` is in (0.5, 1]."""
    annotated_id: int
    predicted_id: int
    iou: float


class SegmentMatching(NamedTuple):
    """The matched and the unmatched segments of one image.

    Attributes:
        true_positives: Matched pairs.
        false_negatives: Ids of the annotated segments without a match, except crowd regions.
        false_positives: Ids of the predicted segments without a match, except the ignored ones.
    """
    true_positives: List[MatchedPair]
    false_negatives: List[int]
    false_positives: List[int]


def joint_histogram(first: np.ndarray, second: np.ndarray) -> Dict[Tuple[int, int], int]:
    """Count the pixels of each pair of values of two (H, W) maps of non-negative integers.

    Segments have long runs of equal pixels along the rows, so only one pixel of each run is sorted.

    Raises:
        ValueError: A value is negative.
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
    # Faster than `np.unique(..., return_inverse=True)`, which sorts indices: there are few different pairs.
    pairs = np.unique(keys)
    pixels = np.bincount(np.searchsorted(pairs, keys), weights=lengths).astype(np.int64)
    return {(pair // base, pair % base): number for pair, number in zip(pairs.tolist(), pixels.tolist())}


def segment_areas(overlaps: Overlaps) -> Tuple[Dict[int, int], Dict[int, int]]:
    """Return the number of pixels of each annotated id and of each predicted id."""
    annotated_area: Dict[int, int] = {}
    predicted_area: Dict[int, int] = {}
    for (annotated_id, predicted_id), pixels in overlaps.items():
        annotated_area[annotated_id] = annotated_area.get(annotated_id, 0) + pixels
        predicted_area[predicted_id] = predicted_area.get(predicted_id, 0) + pixels
    return annotated_area, predicted_area


def segment_ious(overlaps: Overlaps) -> Dict[Tuple[int, int], float]:
    """Return the IoU of each annotated id and predicted id that overlap, whatever their classes.

    Unlabeled pixels do not count toward the area of a predicted segment; pixels of crowd regions do.
    """
    annotated_area, predicted_area = segment_areas(overlaps)
    ious = {}
    for (annotated_id, predicted_id), intersection in overlaps.items():
        if annotated_id != VOID_ID:
            unlabeled = overlaps.get((VOID_ID, predicted_id), 0)
            union = annotated_area[annotated_id] + predicted_area[predicted_id] - unlabeled - intersection
            ious[annotated_id, predicted_id] = intersection / union
    return ious


def match_segments(overlaps: Overlaps, segments: Sequence[Mapping],
                   label_of: Mapping[int, int]) -> SegmentMatching:
    """Match the predicted segments of one image with its annotated segments.

    Two segments match if they have the same class, the annotated one is not a crowd region, and their IoU is
    greater than 0.5. A predicted segment without a match is ignored if more than half of its pixels are
    unlabeled or belong to the crowd region of its class.

    Args:
        overlaps: Joint histogram of the annotated ids (0 is unlabeled) and the predicted ids.
        segments: ``id``, ``category`` and ``iscrowd`` of each annotated segment.
        label_of: Class of each predicted id. A predicted id that is not listed is void.
    """
    # Segments do not overlap, so that an IoU above 0.5 makes the pairs unique.
    segment_of = {segment['id']: segment for segment in segments}
    true_positives = []
    for (annotated_id, predicted_id), iou in segment_ious(overlaps).items():
        segment = segment_of.get(annotated_id)
        if segment is None or segment['iscrowd'] or segment['category'] != label_of.get(predicted_id):
            continue
        if iou > 0.5:
            true_positives.append(MatchedPair(annotated_id, predicted_id, iou))

    matched = {pair.annotated_id for pair in true_positives}
    false_negatives = [
        segment['id'] for segment in segments if segment['id'] not in matched and not segment['iscrowd']
    ]

    # If a class has several crowd regions, panopticapi uses the last one.
    crowd_id = {segment['category']: segment['id'] for segment in segments if segment['iscrowd']}
    predicted_area = segment_areas(overlaps)[1]
    matched = {pair.predicted_id for pair in true_positives}
    false_positives = []
    for predicted_id, label in label_of.items():
        ignored = overlaps.get((VOID_ID, predicted_id), 0)
        if label in crowd_id:
            ignored += overlaps.get((crowd_id[label], predicted_id), 0)
        if predicted_id not in matched and ignored / predicted_area[predicted_id] <= 0.5:
            false_positives.append(predicted_id)
    return SegmentMatching(true_positives, false_negatives, false_positives)
