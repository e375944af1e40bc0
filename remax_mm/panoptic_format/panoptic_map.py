"""Panoptic maps in mmdet's encoding, label + 1000 * instance, from and to segment ids and indices."""
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np
from mmdet.evaluation import INSTANCE_OFFSET
from scipy.ndimage import find_objects

from .segment_ids import VOID_ID
from .segment_index import index_segments


def number_segments(panoptic_map: np.ndarray, num_classes: int) -> Tuple[np.ndarray, List[Dict[str, Any]]]:
    """Number the segments of a predicted map from 1 on, which leaves 0 to void.

    The map's own values will not do as PNG ids: without thing classes stuff label 0 has value 0.

    Args:
        panoptic_map: (H, W) integers label + 1000 * instance; label ``num_classes`` is void.
        num_classes: K.

    Returns:
        (H, W) int32 ids in [0, S], and for the segments 1..S in order of their values a dict of ``id``,
        ``value`` (in ``panoptic_map``), ``label``, ``area`` in pixels and ``bbox`` (x, y, width, height).

    Raises:
        ValueError: a label is out of range.
    """
    values, index = np.unique(panoptic_map, return_inverse=True)
    labels = check_labels(values, num_classes)
    taken = labels != num_classes
    new_ids = np.where(taken, np.cumsum(taken), VOID_ID).astype(np.int32)
    ids = new_ids[index.reshape(panoptic_map.shape)]

    areas = np.bincount(ids.ravel(), minlength=int(taken.sum()) + 1)
    segments = []
    for value, label, (rows, columns) in zip(values[taken], labels[taken], find_objects(ids)):
        segment_id = len(segments) + 1
        bbox = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
        segments.append(
            dict(id=segment_id, value=int(value), label=int(label), area=int(areas[segment_id]), bbox=bbox))
    return ids, segments


def check_labels(values: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels in [0, K] of map values label + 1000 * instance; K is void.

    Raises:
        ValueError: a value is negative, or its label is greater than K.
    """
    labels = values % INSTANCE_OFFSET
    wrong = values[(values < 0) | (labels > num_classes)]
    if wrong.size:
        raise ValueError(f'Expected values label + {INSTANCE_OFFSET} * instance with a label in '
                         f'[0, {num_classes}], but the predicted map holds {wrong[:5].tolist()}')
    return labels


def to_panoptic_map(segment_map: np.ndarray, labels: Sequence[int], is_thing: Sequence[bool],
                    void_label: int) -> np.ndarray:
    """Values label + 1000 * instance of a map of segment indices.

    Args:
        segment_map: (H, W), 0 is void, i >= 1 is row i - 1 of the tables.
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
    """Values label + 1000 * instance of a map of segment ids; crowd and unlisted ids are void.

    Args:
        ids: (H, W) segment ids of a panoptic PNG.
        segments: Of each segment ``id``, ``category`` in [0, K), ``is_thing`` and ``iscrowd``.
        void_label: K.
    """
    visible = [segment for segment in segments if not segment.get('iscrowd', False)]
    index = index_segments(ids, [segment['id'] for segment in visible]).index
    labels, is_thing = ([segment[key] for segment in visible] for key in ('category', 'is_thing'))
    return to_panoptic_map(index, labels, is_thing, void_label)
