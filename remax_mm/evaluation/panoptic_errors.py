"""Kinds of errors: why segments lower the panoptic quality.

Every false negative and every false positive of PQ has one of the following kinds, the first that applies.
The IoU is that of PQ: unlabeled pixels do not count toward the area of a predicted segment.

- ``wrong class``: A segment of another class has an IoU above 0.5 with it.
- ``merged`` (things only): One predicted segment covers more than half of each of several annotated things of
  its class. Those of these things that have no match are merged; so is the predicted segment if it has no
  match.
- ``split`` (things only): Several predicted segments of the same class have more than half of their pixels in
  one annotated thing, and together they cover more than half of it. The thing is split if it has no match; so
  are those of the predicted segments that have no match.
- ``poor mask``: A segment of the same class that has no match either has an IoU above 0.1 with it. With an
  IoU above 0.5, the two would match; SQ measures the masks of matched segments.
- ``missed``: Any other annotated segment.
- ``hallucinated``: Any other predicted segment.

Crowd regions are no errors, and neither are the predicted segments that PQ ignores because they lie on crowd
regions or on unlabeled pixels. One pair of segments can be a false negative and a false positive of the same
kind.
"""
from collections import Counter
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from remax_mm.panoptic_format import VOID_ID, PanopticPair
from .panoptic_pairs import overlap_pair
from .panoptic_quality import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE, count_matching, mean_quality
from .segment_matching import Overlaps, SegmentMatching, match_segments, segment_areas, segment_ious

ERROR_KINDS = ('missed', 'hallucinated', 'wrong class', 'merged', 'split', 'poor mask')
POOR_IOU = 0.1
"""IoU that a pair must exceed to be a poor mask; below, the segments are missed and hallucinated."""

IdPair = Tuple[int, int]
"""An annotated id and a predicted id."""


class SegmentError(NamedTuple):
    """A segment that is a false negative or a false positive of PQ.

    Attributes:
        kind: One of ``ERROR_KINDS``.
        annotated: Whether the segment is annotated (a false negative) or predicted (a false positive).
        segment_id: Its id in the annotation or in the prediction.
        label: Its class in [0, K).
        other_id: The predicted or annotated segment that explains the error; None if missed or hallucinated.
        other_label: The class of that segment.
    """
    kind: str
    annotated: bool
    segment_id: int
    label: int
    other_id: Optional[int]
    other_label: Optional[int]


class ImageErrors(NamedTuple):
    """The errors of one image, and its counts (K, 4), see :func:`count_segments`."""
    image_id: Any
    counts: np.ndarray
    errors: List[SegmentError]


def find_errors(overlaps: Overlaps, matching: SegmentMatching, segments: Sequence[Mapping],
                label_of: Mapping[int, int], is_thing: Sequence[bool]) -> List[SegmentError]:
    """Determine the kind of every false negative and every false positive of an image.

    Args:
        overlaps: Joint histogram of the annotated ids (0 is unlabeled) and the predicted ids.
        matching: The result of :func:`match_segments` for ``overlaps``.
        segments: ``id``, ``category`` and ``iscrowd`` of each annotated segment.
        label_of: Class of each predicted id.
        is_thing: (K,), whether each class is a thing class.
    """
    category_of = {segment['id']: segment['category'] for segment in segments if not segment['iscrowd']}
    ious = {
        (annotated_id, predicted_id): iou
        for (annotated_id, predicted_id), iou in segment_ious(overlaps).items()
        if annotated_id in category_of and predicted_id in label_of
    }
    same_class = {pair: iou for pair, iou in ious.items() if category_of[pair[0]] == label_of[pair[1]]}

    # The pairs that explain an error, by kind. If several pairs explain a segment, the last one counts.
    wrong_class = [pair for pair, iou in ious.items() if iou > 0.5 and pair not in same_class]
    merged, split = _merged_and_split(overlaps, [pair for pair in same_class if is_thing[label_of[pair[1]]]])
    unmatched = set(matching.false_negatives)
    matched = {pair.predicted_id for pair in matching.true_positives}
    poor = [
        pair for pair, iou in same_class.items()
        if iou > POOR_IOU and pair[0] in unmatched and pair[1] not in matched
    ]
    poor.sort(key=lambda pair: same_class[pair])
    causes = (('wrong class', wrong_class), ('merged', merged), ('split', split), ('poor mask', poor))

    # The first kind that applies to each segment, with the other segment of the pair
    errors = []
    sides = ((matching.false_negatives, 0, 'missed'), (matching.false_positives, 1, 'hallucinated'))
    for ids, side, default in sides:
        tables = [(kind, {pair[side]: pair[1 - side] for pair in pairs}) for kind, pairs in causes]
        own_label, other_label = (category_of, label_of) if side == 0 else (label_of, category_of)
        for segment_id in ids:
            kind, other_id = next(
                ((kind, table[segment_id]) for kind, table in tables if segment_id in table), (default, None))
            errors.append(
                SegmentError(kind, side == 0, segment_id, own_label[segment_id], other_id,
                             None if other_id is None else other_label[other_id]))
    return errors


def _merged_and_split(overlaps: Overlaps, pairs: Sequence[IdPair]) -> Tuple[List[IdPair], List[IdPair]]:
    """Select the pairs of merged things and those of split things from pairs of the same thing class."""
    annotated_area, predicted_area = segment_areas(overlaps)
    covered: Dict[int, List[IdPair]] = {}  # predicted id -> pairs whose annotated segment it mostly covers
    parts: Dict[int, List[IdPair]] = {}  # annotated id -> pairs whose predicted segment lies mostly inside it
    for pair in pairs:
        annotated_id, predicted_id = pair
        if overlaps[pair] > annotated_area[annotated_id] / 2:
            covered.setdefault(predicted_id, []).append(pair)
        if overlaps[pair] > (predicted_area[predicted_id] - overlaps.get((VOID_ID, predicted_id), 0)) / 2:
            parts.setdefault(annotated_id, []).append(pair)
    merged = [pair for group in covered.values() if len(group) > 1 for pair in group]
    split = [
        pair for annotated_id, group in parts.items()
        if len(group) > 1 and sum(overlaps[part] for part in group) > annotated_area[annotated_id] / 2
        for pair in group
    ]
    return merged, split


def inspect_pair(pair: PanopticPair, is_thing: Sequence[bool], check_ids: bool = True) -> ImageErrors:
    """Read the PNGs of one image and find its errors; see :func:`overlap_pair` for the checks."""
    overlaps = overlap_pair(pair, len(is_thing), check_ids)
    matching = match_segments(overlaps, pair.gt_segments, pair.pred_labels)
    counts = count_matching(matching, pair.gt_segments, pair.pred_labels, len(is_thing))
    errors = find_errors(overlaps, matching, pair.gt_segments, pair.pred_labels, is_thing)
    return ImageErrors(pair.image_id, counts, errors)


def count_errors(images: Sequence[ImageErrors], num_classes: int) -> Dict[str, np.ndarray]:
    """Count the false negatives and false positives of each class, (K, 2), for each kind of error."""
    numbers = {kind: np.zeros((num_classes, 2), dtype=np.int64) for kind in ERROR_KINDS}
    for image in images:
        for error in image.errors:
            numbers[error.kind][error.label, 0 if error.annotated else 1] += 1
    return numbers


def total_counts(images: Sequence[ImageErrors], num_classes: int) -> np.ndarray:
    """Sum the counts (K, 4) of all images."""
    return sum((image.counts for image in images), np.zeros((num_classes, 4)))


def quality_without(images: Sequence[ImageErrors], is_thing: Sequence[bool]) -> Dict[str, float]:
    """Compute PQ in percent without the errors of one kind, for each kind; empty if there are no segments.

    An annotated class stays in the mean with a PQ of 0 if all its segments are such errors. A class without
    annotated segments is then left out of the mean.
    """
    total = total_counts(images, len(is_thing))
    quality = {}
    for kind, numbers in count_errors(images, len(is_thing)).items():
        counts = total.copy()
        counts[:, [FALSE_NEGATIVE, FALSE_POSITIVE]] -= numbers
        annotated = total[:, TRUE_POSITIVE] + total[:, FALSE_NEGATIVE] > 0
        only_errors = annotated & ~counts.any(1)
        counts[only_errors] = total[only_errors]
        means = mean_quality(counts, is_thing)
        if means:
            quality[kind] = means['PQ']
    return quality


def count_confusions(images: Sequence[ImageErrors]) -> List[Tuple[int, int, int]]:
    """Return annotated class, predicted class and number of ``wrong class`` errors, most frequent first."""
    pairs = Counter((error.label, error.other_label) for image in images for error in image.errors
                    if error.annotated and error.kind == 'wrong class' and error.other_label is not None)
    return [(label, other_label, number) for (label, other_label), number in pairs.most_common()]


def worst_images(images: Sequence[ImageErrors], is_thing: Sequence[bool]) -> List[Tuple[float, ImageErrors]]:
    """Return the PQ in percent of each image that has segments, with its errors, lowest PQ first.

    The PQ of an image is the mean over its annotated and predicted classes. Of images with the same PQ, the
    one with more errors comes first.
    """
    scored = [(mean_quality(image.counts, is_thing).get('PQ'), image) for image in images]
    return sorted(((quality, image) for quality, image in scored if quality is not None),
                  key=lambda entry: (entry[0], -len(entry[1].errors)))
