"""Segments as the JSON of the COCO panoptic format lists them."""
from typing import List, NamedTuple, Sequence

import numpy as np
from scipy.ndimage import find_objects

from .segment_index import index_segments


class SegmentLabel(NamedTuple):
    """A segment's id in the PNG, its category id in the JSON, and whether it is a crowd."""
    id: int
    category_id: int
    iscrowd: bool = False


def describe_segments(ids: np.ndarray, labels: Sequence[SegmentLabel]) -> List[dict]:
    """The ``segments_info`` of COCO's format: labels with bounding box (x, y, width, height) and area.

    Args:
        ids: (H, W) segment ids, 0 is unlabeled.
        labels: Of the segments, whose order the result keeps.

    Raises:
        ValueError: the ids of map and labels differ, or an id has two labels.
    """
    index, unknown, unseen, areas = index_segments(ids, [label.id for label in labels])
    if unknown or unseen or len({label.id for label in labels}) < len(labels):
        raise ValueError(f'Expected one label for each segment, but {unknown[:5] or "none"} have no label, '
                         f'{unseen[:5] or "none"} have no pixel, and {len(labels)} labels have '
                         f'{len({label.id for label in labels})} ids')
    return [
        dict(
            id=int(label.id),
            category_id=int(label.category_id),
            iscrowd=int(label.iscrowd),
            bbox=[columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
            area=area) for label, area, (rows, columns) in zip(labels, areas.tolist(), find_objects(index))
    ]
