"""Annotations and thing classes as all metrics need them."""
from typing import List, Mapping, Optional, Sequence

from remax_mm.panoptic_format import PanopticAnnotation, get_annotation


def require_annotation(sample: Mapping,
                       is_thing: Sequence[bool],
                       backend_args: Optional[dict] = None) -> PanopticAnnotation:
    """Return the annotation of a data sample, with ``iscrowd`` for every segment.

    Args:
        sample: See :func:`get_annotation`. The segments of mmdet's own dataset lack ``iscrowd``; a crowd
            region there has a thing class and a false ``is_thing``.
        is_thing: (K,), whether each class is a thing class.
        backend_args: Arguments of the storage backend of the PNG.

    Raises:
        FileNotFoundError: The PNG does not exist.
        ValueError: The data sample has no annotation, or the PNG cannot be decoded.
    """
    annotation = get_annotation(sample, backend_args)
    if annotation is None:
        raise ValueError(
            f'Expected an annotation in the data sample of {sample.get("img_path")}, but it has none: add '
            'LoadSegmentIds to the test pipeline, or, with a pack transform other than PackPanopticInputs, '
            '`seg_map_path` and `segments_info` to its `meta_keys`')
    segments = [
        segment if 'iscrowd' in segment else dict(
            segment, iscrowd=is_thing[segment['category']] and not segment['is_thing'])
        for segment in annotation.segments
    ]
    return annotation._replace(segments=segments)


def thing_flags(dataset_meta: Mapping) -> List[bool]:
    """Return for each of the K ``classes`` of a dataset whether it is one of its ``thing_classes``."""
    things = set(dataset_meta['thing_classes'])
    return [name in things for name in dataset_meta['classes']]
