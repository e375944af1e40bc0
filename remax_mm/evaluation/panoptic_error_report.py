"""Errors of panoptic predictions as printed tables and as a dict for JSON."""
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from terminaltables import AsciiTable

from remax_mm.panoptic_format import PanopticFiles
from .panoptic_errors import (ERROR_KINDS, ImageErrors, count_confusions, count_errors, quality_without,
                              total_counts, worst_images)
from .panoptic_quality import class_quality, group_quality


def format_errors(files: PanopticFiles, images: Sequence[ImageErrors], num_worst: int = 10) -> str:
    """Format tables of the kinds of errors, the classes, the most frequent confusions and the worst images.

    Args:
        files: The dataset.
        images: The errors of its images.
        num_worst: Number of confusions and number of images to list.
    """
    numbers = count_errors(images, len(files.classes))
    without = quality_without(images, files.is_thing)
    kinds = [['error', 'annotated (FN)', 'predicted (FP)', 'PQ without them']]
    for kind in ERROR_KINDS:
        kinds.append([kind, *map(str, numbers[kind].sum(0)), f'{without[kind]:.2f}' if without else '-'])

    counts = total_counts(images, len(files.classes))
    quality = class_quality(counts)
    classes = [['class', 'PQ', 'TP', 'FP', 'FN', *ERROR_KINDS]]
    for label in np.flatnonzero(counts[:, 1:].any(1)):
        cells = [_format_cell(numbers[kind][label], kind) for kind in ERROR_KINDS]
        classes.append([
            files.classes[label], f'{100 * quality.pq[label]:.2f}', *map(str, counts[label, 1:].astype(int)),
            *cells
        ])

    confusions = [['annotated', 'predicted', 'segments']]
    confusions += [[files.classes[label], files.classes[other],
                    str(number)] for label, other, number in count_confusions(images)[:num_worst]]
    worst = [['image', 'PQ', 'errors']]
    worst += [[str(image.image_id), f'{quality:.2f}',
               summarize_image(image)] for quality, image in worst_images(images, files.is_thing)[:num_worst]]
    sections = (('Errors', kinds), ('Classes (annotated + predicted segments of each error)', classes),
                ('Wrong classes', confusions), ('Worst images', worst))
    return '\n\n'.join(f'{title}:\n{AsciiTable(rows).table}' for title, rows in sections)


def summarize_image(image: ImageErrors, annotated: Optional[bool] = None) -> str:
    """Format the numbers of errors of an image, such as ``2 missed, 1 merged``.

    Args:
        image: The errors of the image.
        annotated: Count only annotated segments (True) or only predicted ones (False); None counts both.
    """
    kinds = [error.kind for error in image.errors if annotated in (None, error.annotated)]
    return ', '.join(f'{kinds.count(kind)} {kind}' for kind in ERROR_KINDS if kind in kinds) or 'no errors'


def errors_as_dict(files: PanopticFiles, images: Sequence[ImageErrors]) -> Dict[str, Any]:
    """Return all results for JSON: totals, the results of each class, and every error of each image.

    The quality is in percent; ``annotated`` and ``predicted`` are numbers of segments. Images are sorted by
    PQ, lowest first; images without segments are left out.
    """
    numbers = count_errors(images, len(files.classes))
    without = quality_without(images, files.is_thing)
    counts = total_counts(images, len(files.classes))

    def of_kinds(rows: Dict[str, np.ndarray]) -> Dict[str, Dict[str, int]]:
        return {kind: dict(zip(('annotated', 'predicted'), rows[kind].tolist())) for kind in ERROR_KINDS}

    totals = of_kinds({kind: rows.sum(0) for kind, rows in numbers.items()})
    return dict(
        quality=group_quality(counts, files.is_thing),
        errors={
            kind: dict(total, PQ_without=without.get(kind))
            for kind, total in totals.items()
        },
        classes=[
            dict(
                id=files.category_ids[label],
                name=name,
                **{
                    key: int(number)
                    for key, number in zip(('TP', 'FP', 'FN'), counts[label, 1:])
                },
                errors=of_kinds({
                    kind: rows[label]
                    for kind, rows in numbers.items()
                })) for label, name in enumerate(files.classes)
        ],
        confusions=[
            dict(annotated=files.classes[label], predicted=files.classes[other], segments=number)
            for label, other, number in count_confusions(images)
        ],
        images=[
            dict(id=image.image_id, PQ=quality, errors=_error_rows(files, image))
            for quality, image in worst_images(images, files.is_thing)
        ])


def _error_rows(files: PanopticFiles, image: ImageErrors) -> List[Dict[str, Any]]:
    """Return the errors of an image with class names instead of labels."""
    return [
        dict(
            kind=error.kind,
            annotated=error.annotated,
            segment_id=error.segment_id,
            category=files.classes[error.label],
            other_id=error.other_id,
            other_category=None if error.other_label is None else files.classes[error.other_label])
        for error in image.errors
    ]


def _format_cell(counts: np.ndarray, kind: str) -> str:
    """Format the numbers (2,) of annotated and of predicted segments; some kinds have only one of the two."""
    annotated, predicted = counts.tolist()
    if not annotated + predicted:
        return '-'
    one_sided = kind in ('missed', 'hallucinated')
    return str(annotated + predicted) if one_sided else f'{annotated} + {predicted}'
