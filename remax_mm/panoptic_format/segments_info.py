"""``segments_info``, the list of an image's segments in the JSON of the COCO panoptic format."""
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

import numpy as np

from .segment_index import find_boxes, index_segments


class SegmentLabel(NamedTuple):
    """A segment's id in the PNG, its category id in the JSON, and whether it is a crowd region."""
    id: int
    category_id: int
    iscrowd: bool = False


def describe_segments(ids: np.ndarray, labels: Sequence[SegmentLabel]) -> List[Dict[str, Any]]:
    """Make the ``segments_info`` of an image: each label with its bounding box and area.

    Args:
        ids: (H, W) segment ids, 0 is unlabeled.
        labels: One for each id in ``ids`` except 0; the result keeps their order.

    Returns:
        Of each segment ``id``, ``category_id``, ``iscrowd`` (0 or 1), ``bbox`` (x, y, width, height) and
        ``area``, in pixels.

    Raises:
        ValueError: the ids of map and labels differ, or an id has two labels.
    """
    num_ids = len({label.id for label in labels})
    segment_map, unknown, unseen, areas = index_segments(ids, [label.id for label in labels])
    if unknown or unseen or num_ids < len(labels):
        raise ValueError(f'Expected one label for each segment, but {unknown[:5] or "none"} have no label, '
                         f'{unseen[:5] or "none"} have no pixel, and {len(labels)} labels have {num_ids} ids')
    boxes = find_boxes(segment_map, len(labels))
    return [
        dict(
            id=int(label.id),
            category_id=int(label.category_id),
            iscrowd=int(label.iscrowd),
            bbox=box,
            area=area) for label, box, area in zip(labels, boxes, areas.tolist())
    ]


def label_segments(annotation: Mapping, label_of: Mapping[int, int], num_things: int) -> List[Dict[str, Any]]:
    """Replace the category ids of an image's segments by labels.

    Args:
        annotation: Checked entry of ``annotations`` in a panoptic JSON.
        label_of: Label in [0, K) of each category id; things come first.
        num_things: Number of thing classes.

    Returns:
        Of each segment ``id``, ``category`` (label in [0, K)), ``is_thing``, ``iscrowd``, and ``area`` (in
        pixels, None if the JSON does not give it).
    """
    segments = []
    for segment in annotation['segments_info']:
        label = label_of[segment['category_id']]
        segments.append(
            dict(
                id=segment['id'],
                category=label,
                is_thing=label < num_things,
                iscrowd=bool(segment.get('iscrowd', False)),
                area=segment.get('area')))
    return segments
