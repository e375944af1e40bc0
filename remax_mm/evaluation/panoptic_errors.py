"""Why segments count against panoptic quality.

Every false negative and every false positive of PQ has one of these kinds, the first that fits. IoU is that
of PQ: unlabeled pixels are cut from the predicted segment, here also where its pixels are counted.

- ``wrong class``: a segment of another class has an IoU above 0.5 with it.
- ``merged`` (things): one predicted segment covers more than half of each of several annotated things of
  its class. Such an annotated thing without a match is merged; so is the predicted segment, if it has none.
- ``split`` (things): several predicted segments of its class lie inside an annotated thing with more than
  half of their pixels, and cover more than half of it together. The thing, if it has no match, and each such
  predicted segment without one are split.
- ``poor mask``: a segment of the same class, without a match as well, has an IoU above 0.1 with it. Above 0.5
  they would match; how well those do that is told by SQ.
- ``missed``: an annotated segment that is none of these. ``hallucinated``: a predicted one.

Crowd regions, and predictions that PQ forgives because they lie on them or on unlabeled pixels, are no
errors. A pair of segments can be one false negative and one false positive of the same kind.
"""
from collections import Counter
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from remax_mm.evaluation.panoptic_quality import (FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE,
                                                  count_matching, mean_quality)
from remax_mm.evaluation.segment_matching import (Overlaps, SegmentMatching, match_segments, segment_areas,
                                                  segment_ious)
from remax_mm.panoptic_format import VOID_ID, PanopticPair
from .panoptic_pairs import overlap_pair

ERROR_KINDS = ('missed', 'hallucinated', 'wrong class', 'merged', 'split', 'poor mask')
POOR_IOU = 0.1
"""A mask of less IoU is no attempt at the segment."""


class SegmentError(NamedTuple):
    """A segment that counts against PQ.

    Attributes:
        kind: One of ``ERROR_KINDS``.
        annotated: Whether it is annotated (a false negative) or predicted (a false positive).
        segment_id: Its id in the annotation or in the prediction.
        label: Its class in [0, K).
        other_id: The segment of the other side that makes it so; None if missed or hallucinated.
        other_label: The class of that one.
    """
    kind: str
    annotated: bool
    segment_id: int
    label: int
    other_id: Optional[int]
    other_label: Optional[int]


class ImageErrors(NamedTuple):
    """Errors of one image, and its counts (K, 4) as of :func:`count_segments`."""
    image_id: Any
    counts: np.ndarray
    errors: List[SegmentError]


def find_errors(overlaps: Overlaps, matching: SegmentMatching, segments: Sequence[Mapping],
                label_of: Mapping[int, int], is_thing: Sequence[bool]) -> List[SegmentError]:
    """Say of every false negative and false positive of an image what it is.

    Args:
        overlaps: Joint histogram of the annotated ids, 0 unlabeled, and the predicted ids.
        matching: What :func:`match_segments` makes of it.
        segments: Of each annotated segment ``id``, ``category`` and ``iscrowd``.
        label_of: Class of each predicted id.
        is_thing: (K,).
    """
    category_of = {segment['id']: segment['category'] for segment in segments if not segment['iscrowd']}
    ious = {
        (one, other): iou
        for (one, other), iou in segment_ious(overlaps).items() if one in category_of and other in label_of
    }
    of_class = {pair: iou for pair, iou in ious.items() if category_of[pair[0]] == label_of[pair[1]]}

    # What explains a segment, as pairs of an annotated and a predicted id; of several pairs the last counts.
    wrong = [pair for pair, iou in ious.items() if iou > 0.5 and pair not in of_class]
    merged, split = _merged_and_split(overlaps, [pair for pair in of_class if is_thing[label_of[pair[1]]]])
    missed, taken = set(matching.missed), {pair.value for pair in matching.pairs}
    attempts = [
        pair for pair, iou in of_class.items()
        if iou > POOR_IOU and pair[0] in missed and pair[1] not in taken
    ]
    poor = sorted(attempts, key=of_class.get)
    causes = (('wrong class', wrong), ('merged', merged), ('split', split), ('poor mask', poor))

    errors = []
    for ids, side, rest in ((matching.missed, 0, 'missed'), (matching.extra, 1, 'hallucinated')):
        tables = [(kind, {pair[side]: pair[1 - side] for pair in pairs}) for kind, pairs in causes]
        own, others = (category_of, label_of) if side == 0 else (label_of, category_of)
        for segment_id in ids:
            kind, other = next(((kind, table[segment_id]) for kind, table in tables if segment_id in table),
                               (rest, None))
            errors.append(
                SegmentError(kind, side == 0, segment_id, own[segment_id], other, others.get(other)))
    return errors


def _merged_and_split(
        overlaps: Overlaps,
        pairs: Sequence[Tuple[int, int]]) -> Tuple[List[Tuple[int, int]], List[Tuple[int, int]]]:
    """Of the pairs of a thing and a prediction of its class, those of merged and those of split things."""
    annotated_area, predicted_area = segment_areas(overlaps)
    covered: Dict[int, List[Tuple[int, int]]] = {}  # by the predicted segment
    parts: Dict[int, List[Tuple[int, int]]] = {}  # by the annotated one
    for pair in pairs:
        segment_id, value = pair
        if overlaps[pair] > annotated_area[segment_id] / 2:
            covered.setdefault(value, []).append(pair)
        if overlaps[pair] > (predicted_area[value] - overlaps.get((VOID_ID, value), 0)) / 2:
            parts.setdefault(segment_id, []).append(pair)
    merged = [pair for group in covered.values() if len(group) > 1 for pair in group]
    split = [
        pair for segment_id, group in parts.items()
        if len(group) > 1 and sum(overlaps[part] for part in group) > annotated_area[segment_id] / 2
        for pair in group
    ]
    return merged, split


def inspect_pair(pair: PanopticPair, is_thing: Sequence[bool], check_ids: bool = True) -> ImageErrors:
    """Read the PNGs of an image and find its errors; see :func:`overlap_pair` for what is checked."""
    overlaps = overlap_pair(pair, len(is_thing), check_ids)
    matching = match_segments(overlaps, pair.gt_segments, pair.pred_labels)
    counts = count_matching(matching, pair.gt_segments, pair.pred_labels, len(is_thing))
    errors = find_errors(overlaps, matching, pair.gt_segments, pair.pred_labels, is_thing)
    return ImageErrors(pair.image_id, counts, errors)


def count_errors(images: Sequence[ImageErrors], num_classes: int) -> Dict[str, np.ndarray]:
    """Number of false negatives and of false positives of each kind and class, (K, 2)."""
    numbers = {kind: np.zeros((num_classes, 2), dtype=np.int64) for kind in ERROR_KINDS}
    for image in images:
        for error in image.errors:
            numbers[error.kind][error.label, 0 if error.annotated else 1] += 1
    return numbers


def quality_without(images: Sequence[ImageErrors], is_thing: Sequence[bool]) -> Dict[str, float]:
    """PQ in percent if the errors of one kind did not count, for each kind; empty without any segment.

    An annotated class whose only segments are such errors keeps its 0. A class that is not annotated at all
    leaves the mean with them.
    """
    total = sum((image.counts for image in images), np.zeros((len(is_thing), 4)))
    quality = {}
    for kind, numbers in count_errors(images, len(is_thing)).items():
        counts = total.copy()
        counts[:, [FALSE_NEGATIVE, FALSE_POSITIVE]] -= numbers
        annotated = total[:, TRUE_POSITIVE] + total[:, FALSE_NEGATIVE] > 0
        gone = annotated & ~counts.any(1)
        counts[gone] = total[gone]
        means = mean_quality(counts, is_thing)
        if means:
            quality[kind] = means['PQ']
    return quality


def count_confusions(images: Sequence[ImageErrors]) -> List[Tuple[int, int, int]]:
    """Annotated class, predicted class and number of segments of the wrong class, the most frequent first."""
    pairs = Counter((error.label, error.other_label) for image in images for error in image.errors
                    if error.annotated and error.kind == 'wrong class')
    return [(label, other, number) for (label, other), number in pairs.most_common()]


def worst_images(images: Sequence[ImageErrors], is_thing: Sequence[bool]) -> List[Tuple[float, ImageErrors]]:
    """PQ of each image that shows a segment, in percent, with its errors: the worst first.

    The PQ of an image is the mean over the classes that occur in it. Among equals, more errors are worse.
    """
    scored = [(mean_quality(image.counts, is_thing).get('PQ'), image) for image in images]
    return sorted(((quality, image) for quality, image in scored if quality is not None),
                  key=lambda entry: (entry[0], -len(entry[1].errors)))
