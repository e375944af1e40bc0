"""Panoptic maps in mmdet's encoding, label + 1000 * instance, from and to segment ids and indices."""
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np
from mmdet.evaluation import INSTANCE_OFFSET

from .segment_ids import VOID_ID
from .segment_index import find_boxes, index_segments


def to_panoptic_map(segment_map: np.ndarray, labels: Sequence[int], is_thing: Sequence[bool],
                    void_label: int) -> np.ndarray:
    """Convert a segment index map to values label + 1000 * instance.

    Args:
        segment_map: (H, W) in [0, S], 0 is void, i >= 1 is row i - 1 of the tables.
        labels: (S,) in [0, K).
        is_thing: (S,).
        void_label: K.

    Returns:
        (H, W) int32.
    """
    rows = enumerate(zip(labels, is_thing), start=1)
    values = [void_label, *(int(label) + INSTANCE_OFFSET * row * bool(thing) for row, (label, thing) in rows)]
    return np.array(values, dtype=np.int32)[segment_map]


def annotated_panoptic_map(ids: np.ndarray, segments: Sequence[Mapping], void_label: int) -> np.ndarray:
    """Convert a map of annotated segment ids to values label + 1000 * instance.

    Args:
        ids: (H, W) segment ids of a panoptic PNG.
        segments: Of each segment ``id``, ``category`` in [0, K), ``is_thing`` and ``iscrowd`` (optional).
            Crowd regions, and ids that are not listed, become void.
        void_label: K.

    Returns:
        (H, W) int32.
    """
    kept = [segment for segment in segments if not segment.get('iscrowd', False)]
    segment_map = index_segments(ids, [segment['id'] for segment in kept]).segment_map
    labels, is_thing = ([segment[key] for segment in kept] for key in ('category', 'is_thing'))
    return to_panoptic_map(segment_map, labels, is_thing, void_label)


def number_segments(panoptic_map: np.ndarray, num_classes: int) -> Tuple[np.ndarray, List[Dict[str, Any]]]:
    """Number the segments of a predicted map from 1; void becomes 0.

    The values of the map cannot be PNG ids: without thing classes, stuff label 0 has the value 0.

    Args:
        panoptic_map: (H, W) integers label + 1000 * instance; label ``num_classes`` is void.
        num_classes: K.

    Returns:
        (H, W) int32 ids in [0, S], and for the segments 1..S, in the order of their values, a dict of ``id``,
        ``value`` (in ``panoptic_map``), ``label``, ``area`` in pixels and ``bbox`` (x, y, width, height).

    Raises:
        ValueError: a label is out of range.
    """
    values, index = np.unique(panoptic_map, return_inverse=True)
    labels = check_labels(values, num_classes)
    is_segment = labels != num_classes
    id_of_value = np.where(is_segment, np.cumsum(is_segment), VOID_ID).astype(np.int32)
    ids = id_of_value[index.reshape(panoptic_map.shape)]

    num_segments = int(is_segment.sum())
    areas = np.bincount(ids.ravel(), minlength=num_segments + 1)[1:]
    columns = (values[is_segment].tolist(), labels[is_segment].tolist(), areas.tolist(),
               find_boxes(ids, num_segments))
    segments = [
        dict(id=segment_id, value=value, label=label, area=area, bbox=box)
        for segment_id, (value, label, area, box) in enumerate(zip(*columns), start=1)
    ]
    return ids, segments


def check_labels(values: np.ndarray, num_classes: int) -> np.ndarray:
    """Extract the labels of values label + 1000 * instance.

    Args:
        values: Integers of any shape.
        num_classes: K.

    Returns:
        Labels in [0, K] of the same shape; K is void.

    Raises:
        ValueError: a value is negative, or its label is greater than K.
    """
    labels = values % INSTANCE_OFFSET
    wrong = values[(values < 0) | (labels > num_classes)]
    if wrong.size:
        raise ValueError(f'Expected values label + {INSTANCE_OFFSET} * instance with a label in '
                         f'[0, {num_classes}], but the predicted map has {wrong[:5].tolist()}')
    return labels
