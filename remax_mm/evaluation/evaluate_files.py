"""Panoptic quality of predictions in files."""
from functools import partial
from typing import Any, Dict

import numpy as np

from remax_mm.panoptic_format import PanopticFiles, map_images
from .panoptic_pairs import count_pair
from .panoptic_quality import class_quality, group_quality


def count_files(files: PanopticFiles, check_ids: bool = True, processes: int = 1) -> np.ndarray:
    """Counts (K, 4) of the segments of all images, see :func:`count_segments`.

    Args:
        files: The annotated dataset and its predictions.
        check_ids: See :func:`overlap_pair`.
        processes: Number of processes.

    Raises:
        FileNotFoundError, ValueError: see :func:`overlap_pair`.
    """
    count = partial(count_pair, num_classes=len(files.classes), check_ids=check_ids)
    return sum(map_images(count, files.pairs, processes), np.zeros((len(files.classes), 4)))


def quality_as_dict(files: PanopticFiles, counts: np.ndarray) -> Dict[str, Any]:
    """The means of :func:`group_quality` and the values of each class, in percent, for JSON.

    Args:
        files: The dataset.
        counts: (K, 4) summed over its images.
    """
    quality = class_quality(counts)
    rows = []
    for label, name in enumerate(files.classes):
        scores: Dict[str, Any] = {
            key.upper(): 100 * float(column[label])
            for key, column in quality._asdict().items()
        }
        segments = {key: int(number) for key, number in zip(('TP', 'FP', 'FN'), counts[label, 1:])}
        if not any(segments.values()):
            scores = dict.fromkeys(scores)
        rows.append(
            dict(
                id=files.category_ids[label],
                name=name,
                isthing=int(files.is_thing[label]),
                **scores,
                **segments))
    return dict(images=len(files.pairs), **group_quality(counts, files.is_thing), classes=rows)
