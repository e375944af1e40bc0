"""Evaluation of one image from its annotated and its predicted PNG."""
from typing import Dict, Tuple

import numpy as np

from remax_mm.panoptic_format import VOID_ID, PanopticPair, read_segment_ids
from .panoptic_quality import check_annotated_segments, count_matching
from .segment_matching import joint_histogram, match_segments, segment_areas


def overlap_pair(pair: PanopticPair, num_classes: int, check_ids: bool = True) -> Dict[Tuple[int, int], int]:
    """Read and check the PNGs of one image, and count the pixels that annotated and predicted ids share.

    Args:
        pair: The files of the image.
        num_classes: K.
        check_ids: Raise an error if the annotated PNG and its JSON do not have the same ids, see
            :func:`count_segments`. For predictions this is always an error.

    Raises:
        FileNotFoundError: A PNG does not exist.
        ValueError: A PNG cannot be decoded, the sizes differ, or a PNG and its JSON do not have the same ids.
    """
    annotated, predicted = read_segment_ids(pair.gt_png), read_segment_ids(pair.pred_png)
    if annotated.shape != predicted.shape:
        raise ValueError(f'Expected {pair.pred_png} to have the size {annotated.shape} (height, width) of '
                         f'{pair.gt_png}, but it has {predicted.shape}')
    overlaps = joint_histogram(annotated, predicted)
    annotated_area, predicted_area = segment_areas(overlaps)
    missing = sorted(set(pair.pred_labels) - set(predicted_area))
    unknown = sorted(set(predicted_area) - set(pair.pred_labels) - {VOID_ID})
    if missing or unknown:
        raise ValueError(
            f'Expected the same segment ids in {pair.pred_png} and in the entry of the image '
            f'{pair.image_id!r} in its JSON, but the PNG lacks the ids {missing} and the JSON lacks '
            f'the ids {unknown}')
    try:
        check_annotated_segments(pair.gt_segments, annotated_area, num_classes, check_ids)
    except ValueError as error:
        raise ValueError(f'Cannot evaluate the image {pair.image_id!r} on {pair.gt_png}: {error}') from error
    return overlaps


def count_pair(pair: PanopticPair, num_classes: int, check_ids: bool = True) -> np.ndarray:
    """Count the segments of one image: (K, 4), see :func:`count_segments` and :func:`overlap_pair`."""
    overlaps = overlap_pair(pair, num_classes, check_ids)
    matching = match_segments(overlaps, pair.gt_segments, pair.pred_labels)
    return count_matching(matching, pair.gt_segments, pair.pred_labels, num_classes)
