"""The annotation of an image at its original size, as all metrics read it from a data sample."""
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

import numpy as np

from remax_mm.panoptic_format import read_segment_ids


class Annotation(NamedTuple):
    """Segments of an image, crowd regions among them.

    Attributes:
        ids: (H, W) int32 segment ids, 0 is unlabeled.
        segments: Of each segment ``id``, ``category`` in [0, K) and ``iscrowd``.
    """
    ids: np.ndarray
    segments: List[Dict[str, Any]]


def read_annotation(sample: Mapping,
                    is_thing: Sequence[bool],
                    backend_args: Optional[dict] = None) -> Annotation:
    """Read the annotated PNG of a data sample.

    Args:
        sample: Its ``seg_map_path`` and ``segments_info`` are read. An entry without ``iscrowd``, as mmdet's
            own dataset makes them, is crowd where its class is one of things and ``is_thing`` is false.
        is_thing: (K,).
        backend_args: Arguments of the storage backend of the PNG.

    Raises:
        FileNotFoundError: there is no such PNG.
        ValueError: the data sample names no annotation, or the file is no image.
    """
    path, infos = sample.get('seg_map_path'), sample.get('segments_info')
    if path is None or infos is None:
        raise ValueError(f'Expected `seg_map_path` and `segments_info` in the data sample of '
                         f'{sample.get("img_path")}; add them to the `meta_keys` of the pack transform')
    segments = []
    for info in infos:
        crowd = info['iscrowd'] if 'iscrowd' in info else is_thing[info['category']] and not info['is_thing']
        segments.append(dict(id=info['id'], category=info['category'], iscrowd=bool(crowd)))
    return Annotation(read_segment_ids(path, backend_args), segments)


def thing_flags(dataset_meta: Mapping) -> List[bool]:
    """Of the K ``classes`` of a dataset, whether each is among its ``thing_classes``."""
    things = set(dataset_meta['thing_classes'])
    return [name in things for name in dataset_meta['classes']]
