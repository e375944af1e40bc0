"""Panoptic quality as printed tables."""
from typing import Sequence

import numpy as np
from terminaltables import AsciiTable

from .panoptic_quality import class_quality, group_quality


def summary_table(counts: np.ndarray, is_thing: Sequence[bool]) -> str:
    """Format PQ, SQ and RQ in percent for all, thing and stuff classes, and the number of classes N.

    Args:
        counts: (K, 4), summed over the images.
        is_thing: (K,), whether each class is a thing class.
    """
    groups = group_quality(counts, is_thing)
    rows = [['', 'PQ', 'SQ', 'RQ', 'N']]
    for title in ('All', 'Things', 'Stuff'):
        scores = groups.get(title, dict(N=0))
        means = (f'{scores[name]:.2f}' if name in scores else '-' for name in ('PQ', 'SQ', 'RQ'))
        rows.append([title, *means, str(scores['N'])])
    return AsciiTable(rows).table


def class_table(counts: np.ndarray, classes: Sequence[str]) -> str:
    """Format PQ, SQ and RQ in percent and the numbers TP, FP and FN of segments for each class.

    Args:
        counts: (K, 4), summed over the images.
        classes: K names.
    """
    quality = class_quality(counts)
    rows = [['class', 'PQ', 'SQ', 'RQ', 'TP', 'FP', 'FN']]
    for label, name in enumerate(classes):
        scores = [100 * float(column[label]) for column in quality]
        rows.append([
            name, *('-' if np.isnan(score) else f'{score:.2f}' for score in scores),
            *(str(int(number)) for number in counts[label, 1:])
        ])
    return AsciiTable(rows).table
