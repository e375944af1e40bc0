"""Panoptic quality by the rules of panopticapi, computed on maps in memory.

Rules: cocodataset/panopticapi, panopticapi/evaluation.py (`pq_compute_single_core`, `PQStat.pq_average`).
"""
from typing import Dict, Iterable, Mapping, NamedTuple, Sequence

import numpy as np
from mmdet.evaluation import INSTANCE_OFFSET

from remax_mm.panoptic_format import VOID_ID, check_labels
from .segment_matching import SegmentMatching, joint_histogram, match_segments, segment_areas

IOU, TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = range(4)
"""Columns of the counts: the sum of the IoU of the matched segments, and three numbers of segments."""


class ClassQuality(NamedTuple):
    """Quality of each class in [0, 1], NaN for classes that are neither annotated nor predicted.

    Attributes:
        pq: (K,) panoptic quality, the product of ``sq`` and ``rq``.
        sq: (K,) segmentation quality, the mean IoU of the matched segments; 0 without a match.
        rq: (K,) recognition quality, the F1 score of the segments.
    """
    pq: np.ndarray
    sq: np.ndarray
    rq: np.ndarray


def count_segments(prediction: np.ndarray,
                   ground_truth: np.ndarray,
                   segments: Sequence[Mapping],
                   num_classes: int,
                   check_ids: bool = True) -> np.ndarray:
    """Match the segments of one image with :func:`match_segments` and count them by class.

    Args:
        prediction: (H, W) integers label + 1000 * instance; label ``num_classes`` is void.
        ground_truth: (H, W) segment ids, 0 is unlabeled.
        segments: ``id``, ``category`` in [0, K) and ``iscrowd`` of each annotated segment.
        num_classes: K.
        check_ids: Raise an error if ``ground_truth`` and ``segments`` do not have the same ids. If False,
            count such ids as panopticapi does: a segment without pixels is a false negative, and pixels of an
            id that is not listed are labeled, so predictions on them are false positives.

    Returns:
        (K, 4) float64: sum of the IoU, true positives, false positives, false negatives.

    Raises:
        ValueError: The maps differ in size, a label is out of range, or ``ground_truth`` and ``segments`` do
            not have the same ids.
    """
    if prediction.shape != ground_truth.shape:
        raise ValueError(f'Expected a predicted map of the annotated size {ground_truth.shape}, '
                         f'but got {prediction.shape}')
    overlaps = joint_histogram(ground_truth, prediction)
    annotated_area, predicted_area = segment_areas(overlaps)
    check_annotated_segments(segments, annotated_area, num_classes, check_ids)
    labels = check_labels(np.array(list(predicted_area), dtype=np.int64), num_classes)
    label_of = {
        predicted_id: label
        for predicted_id, label in zip(predicted_area, labels.tolist()) if label != num_classes
    }
    return count_matching(match_segments(overlaps, segments, label_of), segments, label_of, num_classes)


def count_matching(matching: SegmentMatching, segments: Sequence[Mapping], label_of: Mapping[int, int],
                   num_classes: int) -> np.ndarray:
    """Count the segments of one matched image by class: (K, 4), see :func:`count_segments`."""
    category_of = {segment['id']: segment['category'] for segment in segments}
    counts = np.zeros((num_classes, 4))
    for pair in matching.true_positives:
        counts[category_of[pair.annotated_id], [IOU, TRUE_POSITIVE]] += pair.iou, 1
    for annotated_id in matching.false_negatives:
        counts[category_of[annotated_id], FALSE_NEGATIVE] += 1
    for predicted_id in matching.false_positives:
        counts[label_of[predicted_id], FALSE_POSITIVE] += 1
    return counts


def check_annotated_segments(segments: Sequence[Mapping],
                             annotated_ids: Iterable[int],
                             num_classes: int,
                             check_ids: bool = True) -> None:
    """Check the list of an image's annotated segments against the ids of its map.

    Raises:
        ValueError: An id is 0 or listed twice, a category is out of range, or, with ``check_ids``, the map
            and the list do not have the same ids.
    """
    listed = [segment['id'] for segment in segments]
    if len(set(listed)) != len(listed) or VOID_ID in listed:
        raise ValueError(f'Expected unique segment ids greater than {VOID_ID}, but got {sorted(listed)}')
    missing = sorted(set(listed) - set(annotated_ids))
    unknown = sorted(set(annotated_ids) - set(listed) - {VOID_ID})
    if check_ids and (missing or unknown):
        raise ValueError('Expected the same ids in the annotated map and in the list of segments, but the '
                         f'map lacks the ids {missing} and the list lacks the ids {unknown}')
    wrong = [segment['category'] for segment in segments if not 0 <= segment['category'] < num_classes]
    if wrong:
        raise ValueError(f'Expected annotated categories in [0, {num_classes}), but got {wrong}')


def class_quality(counts: np.ndarray) -> ClassQuality:
    """Compute PQ, SQ and RQ of each class from counts (K, 4), summed over the images."""
    iou, true_positive, false_positive, false_negative = np.asarray(counts, dtype=np.float64).T
    seen = true_positive + false_positive + false_negative > 0
    denominator = np.where(seen, true_positive + 0.5 * false_positive + 0.5 * false_negative, np.nan)
    segmentation = np.where(seen, iou / np.maximum(true_positive, 1), np.nan)
    return ClassQuality(pq=iou / denominator, sq=segmentation, rq=true_positive / denominator)


def group_quality(counts: np.ndarray, is_thing: Sequence[bool]) -> Dict[str, Dict[str, float]]:
    """Average the quality over the classes that are annotated or predicted, in percent.

    Args:
        counts: (K, 4), summed over the images.
        is_thing: (K,), whether each class is a thing class.

    Returns:
        The means ``PQ``, ``SQ``, ``RQ`` and the number of classes ``N`` for each of the groups ``All``,
        ``Things`` and ``Stuff``. A group without such classes is left out.
    """
    quality = class_quality(counts)
    things = np.asarray(is_thing, dtype=bool)
    seen = ~np.isnan(quality.pq)
    groups = dict(All=seen, Things=seen & things, Stuff=seen & ~things)
    return {
        title:
        dict({
            name.upper(): 100 * float(values[group].mean())
            for name, values in quality._asdict().items()
        },
             N=int(group.sum()))
        for title, group in groups.items() if group.any()
    }


def mean_quality(counts: np.ndarray, is_thing: Sequence[bool]) -> Dict[str, float]:
    """Return the means of :func:`group_quality` under mmdet's keys.

    Returns:
        ``PQ``, ``SQ`` and ``RQ`` of all classes; with the suffix ``_th`` of things, with ``_st`` of stuff.
    """
    suffixes = dict(All='', Things='_th', Stuff='_st')
    return {
        f'{name}{suffixes[title]}': scores[name]
        for title, scores in group_quality(counts, is_thing).items()
        for name in ('PQ', 'SQ', 'RQ')
    }


def check_num_classes(num_classes: int) -> None:
    """Raise ValueError if the values label + 1000 * instance cannot represent all classes and void."""
    if num_classes >= INSTANCE_OFFSET:
        raise ValueError(f'Expected fewer than {INSTANCE_OFFSET} classes, but got {num_classes}')
