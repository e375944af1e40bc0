"""Panoptic quality by the rules of panopticapi, on maps in memory.

Rules: cocodataset/panopticapi, panopticapi/evaluation.py (`pq_compute_single_core`, `PQStat.pq_average`);
Kirillov et al., Panoptic Segmentation, CVPR 2019, section 4.
"""
from typing import Dict, Mapping, NamedTuple, Sequence, Tuple

import numpy as np
from mmdet.evaluation import INSTANCE_OFFSET

from .panoptic_png import VOID_ID, check_labels

IOU, TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = range(4)
"""Columns of the counts: summed IoU of the matched segments, and numbers of segments."""


class ClassQuality(NamedTuple):
    """Quality per class in [0, 1], NaN for classes that neither annotation nor prediction shows.

    Attributes:
        pq: (K,) panoptic quality, the product of the other two.
        sq: (K,) segmentation quality, mean IoU of the matched segments; 0 without a match.
        rq: (K,) recognition quality, the F1 score of the segments.
    """
    pq: np.ndarray
    sq: np.ndarray
    rq: np.ndarray


def joint_histogram(first: np.ndarray, second: np.ndarray) -> Dict[Tuple[int, int], int]:
    """Number of pixels of each pair of values of two (H, W) maps of non-negative integers.

    Only runs of equal pairs along the flattened maps are sorted, not every pixel: segments have long runs.

    Raises:
        ValueError: a value is negative.
    """
    first, second = first.ravel().astype(np.int64), second.ravel().astype(np.int64)
    if first.size == 0:
        return {}
    if min(first.min(), second.min()) < 0:
        raise ValueError(f'Expected non-negative ids, but got {first.min()} and {second.min()}')
    changes = np.flatnonzero((first[1:] != first[:-1]) | (second[1:] != second[:-1])) + 1
    starts = np.concatenate([[0], changes])
    lengths = np.diff(starts, append=first.size)

    base = int(second.max()) + 1
    pairs, index = np.unique(first[starts] * base + second[starts], return_inverse=True)
    pixels = np.bincount(index, weights=lengths).astype(np.int64)
    return {(pair // base, pair % base): number for pair, number in zip(pairs.tolist(), pixels.tolist())}


def count_segments(prediction: np.ndarray,
                   ground_truth: np.ndarray,
                   segments: Sequence[Mapping],
                   num_classes: int,
                   check_ids: bool = True) -> np.ndarray:
    """Match the segments of one image and count them.

    A predicted and an annotated segment match iff their class is the same, the annotated one is no crowd, and
    their IoU, with unlabelled pixels cut from the prediction, exceeds 0.5. An unmatched prediction is
    forgiven iff more than half of it lies on unlabelled pixels and on the crowd region of its own class.

    Args:
        prediction: (H, W) integers label + 1000 * instance; label ``num_classes`` is void.
        ground_truth: (H, W) segment ids, 0 is unlabelled.
        segments: Of each annotated segment ``id``, ``category`` in [0, K) and ``iscrowd``.
        num_classes: K.
        check_ids: Whether an id that stands in the map or in the list alone is an error. Where False, they
            count as panopticapi counts them: a segment without pixels as missed, and pixels of an unlisted id
            as wrong, not as unlabelled.

    Returns:
        (K, 4) float64 of summed IoU, true positives, false positives and false negatives.

    Raises:
        ValueError: the maps differ in size, a label is out of range, or the ids of map and list differ.
    """
    if prediction.shape != ground_truth.shape:
        raise ValueError(f'Expected a predicted map of the annotated size {ground_truth.shape}, '
                         f'but got {prediction.shape}')

    overlaps = joint_histogram(ground_truth, prediction)
    annotated_area, predicted_area = _areas(overlaps)
    _check_segments(segments, annotated_area, num_classes, check_ids)
    labels = check_labels(np.array(list(predicted_area), dtype=np.int64), num_classes)
    label_of = {value: label for value, label in zip(predicted_area, labels.tolist()) if label != num_classes}
    segment_of = {segment['id']: segment for segment in segments}

    # Matched pairs. IoU > 0.5 of disjoint segments makes them unique.
    counts = np.zeros((num_classes, 4))
    matched_ids, matched_values = set(), set()
    for (segment_id, value), intersection in overlaps.items():
        segment = segment_of.get(segment_id)
        if segment is None or segment['iscrowd'] or segment['category'] != label_of.get(value):
            continue
        unlabelled = overlaps.get((VOID_ID, value), 0)
        iou = intersection / (predicted_area[value] + annotated_area[segment_id] - intersection - unlabelled)
        if iou > 0.5:
            counts[segment['category'], [IOU, TRUE_POSITIVE]] += iou, 1
            matched_ids.add(segment_id)
            matched_values.add(value)

    # Annotated segments without a match. Of several crowd regions of a class, panopticapi knows the last.
    crowd_id = {}
    for segment in segments:
        if segment['iscrowd']:
            crowd_id[segment['category']] = segment['id']
        elif segment['id'] not in matched_ids:
            counts[segment['category'], FALSE_NEGATIVE] += 1

    # Predicted segments that match nothing, unless they are forgiven.
    for value, label in label_of.items():
        if value in matched_values:
            continue
        ignored = overlaps.get((VOID_ID, value), 0)
        if label in crowd_id:
            ignored += overlaps.get((crowd_id[label], value), 0)
        if ignored / predicted_area[value] <= 0.5:
            counts[label, FALSE_POSITIVE] += 1
    return counts


def _areas(overlaps: Mapping[Tuple[int, int], int]) -> Tuple[Dict[int, int], Dict[int, int]]:
    """Pixels of each value of the first and of the second map of a joint histogram."""
    first: Dict[int, int] = {}
    second: Dict[int, int] = {}
    for (one, other), pixels in overlaps.items():
        first[one] = first.get(one, 0) + pixels
        second[other] = second.get(other, 0) + pixels
    return first, second


def _check_segments(segments: Sequence[Mapping], annotated_area: Mapping[int, int], num_classes: int,
                    check_ids: bool) -> None:
    listed = [segment['id'] for segment in segments]
    if len(set(listed)) != len(listed) or VOID_ID in listed:
        raise ValueError(f'Expected unique segment ids greater than {VOID_ID}, but got {sorted(listed)}')
    missing = sorted(set(listed) - set(annotated_area))
    unknown = sorted(set(annotated_area) - set(listed) - {VOID_ID})
    if check_ids and (missing or unknown):
        raise ValueError('Expected the same ids in the annotated map and in the list of segments, but the '
                         f'map lacks the ids {missing} and the list lacks the ids {unknown}')
    wrong = [segment['category'] for segment in segments if not 0 <= segment['category'] < num_classes]
    if wrong:
        raise ValueError(f'Expected annotated categories in [0, {num_classes}), but got {wrong}')


def class_quality(counts: np.ndarray) -> ClassQuality:
    """PQ, SQ and RQ of each class from counts (K, 4) summed over the images."""
    iou, true_positive, false_positive, false_negative = np.asarray(counts, dtype=np.float64).T
    seen = true_positive + false_positive + false_negative > 0
    denominator = np.where(seen, true_positive + 0.5 * false_positive + 0.5 * false_negative, np.nan)
    segmentation = np.where(seen, iou / np.maximum(true_positive, 1), np.nan)
    return ClassQuality(pq=iou / denominator, sq=segmentation, rq=true_positive / denominator)


def mean_quality(counts: np.ndarray, is_thing: Sequence[bool]) -> Dict[str, float]:
    """Means over the classes that occur, in percent, under mmdet's keys.

    Args:
        counts: (K, 4) summed over the images.
        is_thing: (K,).

    Returns:
        ``PQ SQ RQ`` of all classes, with ``_th`` of the things, with ``_st`` of the stuff. A group of which
        no class occurs has no quality: its keys are left out, and no other mean changes.
    """
    quality = class_quality(counts)
    is_thing = np.asarray(is_thing, dtype=bool)
    seen = ~np.isnan(quality.pq)
    means = {}
    for suffix, group in (('', seen), ('_th', seen & is_thing), ('_st', seen & ~is_thing)):
        if group.any():
            means.update({
                f'{name.upper()}{suffix}': 100 * float(getattr(quality, name)[group].mean())
                for name in ClassQuality._fields
            })
    return means


def check_num_classes(num_classes: int) -> None:
    """Raise ValueError for more classes than the values label + 1000 * instance can hold beside void."""
    if num_classes >= INSTANCE_OFFSET:
        raise ValueError(f'Expected fewer than {INSTANCE_OFFSET} classes, but got {num_classes}')
