"""The annotation of one image at its original size, as metrics and pictures use it."""
from typing import Any, Mapping, NamedTuple, Optional, Sequence

import torch
from torch import Tensor

from .segment_ids import read_segment_ids


class PanopticAnnotation(NamedTuple):
    """All segments of an image, crowd regions included.

    ``LoadSegmentIds`` decodes the PNG, and ``PackPanopticInputs`` stores this tuple as ``gt_annotation`` of
    the data sample. The ids are a tensor because workers of a data loader pass tensors in shared memory. They
    stay on the CPU: ``DetDataSample.to`` moves tensors, but no tuples.

    Attributes:
        ids: (H, W) int32 segment ids, 0 is unlabeled.
        segments: ``id``, ``category`` in [0, K), ``is_thing`` and ``iscrowd`` of each segment.
    """
    ids: Tensor
    segments: Sequence[Mapping[str, Any]]


def get_annotation(sample: Mapping, backend_args: Optional[dict] = None) -> Optional[PanopticAnnotation]:
    """Return the annotation of a data sample: ``gt_annotation``, or else what its PNG contains.

    The PNG is decoded at each call if the pipeline lacks ``LoadSegmentIds``, as mmdet's pipelines do.

    Args:
        sample: A ``DetDataSample`` or its dict, with ``gt_annotation``, or ``seg_map_path`` and
            ``segments_info``. Without these, None is returned.
        backend_args: Arguments of the storage backend of the PNG.

    Raises:
        FileNotFoundError: The PNG does not exist.
        BrokenFileError: The PNG cannot be decoded.
    """
    annotation = sample.get('gt_annotation')
    if annotation is not None:
        # In predictions that mmengine saved it is a plain tuple.
        return annotation if isinstance(annotation, PanopticAnnotation) else PanopticAnnotation(*annotation)
    path, segments = sample.get('seg_map_path'), sample.get('segments_info')
    if path is None or segments is None:
        return None
    return PanopticAnnotation(torch.from_numpy(read_segment_ids(path, backend_args)), segments)
