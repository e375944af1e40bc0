"""Panoptic quality as tables for people."""
from typing import Sequence

import numpy as np
from terminaltables import AsciiTable

from .panoptic_quality import class_quality, mean_quality


def summary_table(counts: np.ndarray, is_thing: Sequence[bool]) -> str:
    """PQ, SQ and RQ in percent of all, thing and stuff classes, and the number N of classes that occur.

    Args:
        counts: (K, 4) summed over the images.
        is_thing: (K,).
    """
    means = mean_quality(counts, is_thing)
    is_thing = np.asarray(is_thing, dtype=bool)
    seen = ~np.isnan(class_quality(counts).pq)
    rows = [['', 'PQ', 'SQ', 'RQ', 'N']]
    for title, suffix, group in (('All', '', seen), ('Things', '_th', seen & is_thing), ('Stuff', '_st',
                                                                                         seen & ~is_thing)):
        scores = (means.get(f'{name}{suffix}') for name in ('PQ', 'SQ', 'RQ'))
        rows.append(
            [title, *('-' if score is None else f'{score:.2f}' for score in scores),
             int(group.sum())])
    return AsciiTable(rows).table


def class_table(counts: np.ndarray, classes: Sequence[str]) -> str:
    """PQ, SQ and RQ in percent of each class, and its segments: matched, extra and missed.

    Args:
        counts: (K, 4) summed over the images.
        classes: K names.
    """
    quality = class_quality(counts)
    rows = [['class', 'PQ', 'SQ', 'RQ', 'TP', 'FP', 'FN']]
    for label, name in enumerate(classes):
        scores = [100 * float(column[label]) for column in quality]
        rows.append([
            name, *('-' if np.isnan(score) else f'{score:.2f}' for score in scores),
            *(int(number) for number in counts[label, 1:])
        ])
    return AsciiTable(rows).table
