"""The PNG side of the COCO panoptic format: segment ids as colours, and segments with ids from 1 on.

Format: https://cocodataset.org/#format-data, section 4; id = R + 256 G + 256^2 B, 0 is unlabelled.
"""
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

import mmcv
import numpy as np
from mmdet.evaluation import INSTANCE_OFFSET
from scipy.ndimage import find_objects

from remax_mm.datasets.image_files import read_image
from remax_mm.datasets.panoptic_writer import encode_segment_ids
from remax_mm.datasets.transforms.load_panoptic_map import decode_segment_ids

VOID_ID = 0
"""Segment id of unlabelled pixels in a panoptic PNG."""


def read_segment_ids(path: str, backend_args: Optional[dict] = None) -> np.ndarray:
    """Read the segment ids of a panoptic PNG.

    Args:
        path: The PNG, on any backend of mmengine's fileio.
        backend_args: Arguments of that backend.

    Returns:
        (H, W) int32 in [0, 2^24).

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFileError: the file is no image, or not a whole one.
    """
    return decode_segment_ids(read_image(path, backend_args))


def write_segment_ids(path: Union[str, Path], ids: np.ndarray) -> None:
    """Write (H, W) segment ids in [0, 2^24) as a panoptic PNG.

    Raises:
        ValueError: an id is out of range.
        OSError: the file cannot be written.
    """
    if not mmcv.imwrite(encode_segment_ids(ids, path), str(path)):
        raise OSError(f'Cannot write the panoptic PNG {path}')


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
