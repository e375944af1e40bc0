"""The last step of a pipeline: conversion to tensors and a data sample."""
from typing import Any, Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from remax_mm.panoptic_format import PanopticAnnotation


class PanopticDataSample(DetDataSample):
    """A data sample whose ground truth a data loader can pin; torch skips objects without this method."""

    def pin_memory(self) -> 'PanopticDataSample':
        """A copy with all tensors in pinned memory."""
        return _pin(self)


def _pin(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.pin_memory()
    if not isinstance(value, BaseDataElement):
        return value
    pinned = value.new()
    for name, item in value.items():
        pinned.set_data({name: _pin(item)})
    return pinned


@TRANSFORMS.register_module()
class PackPanopticInputs(BaseTransform):
    """Pack an image and its ground truth into the inputs of the data preprocessor.

    Required keys: ``img`` (H, W, 3) uint8, and with ground truth ``gt_seg_map``, ``gt_segment_labels`` and
    ``gt_segment_is_thing`` of :class:`LoadPanopticMap`, or ``gt_segment_ids`` of :class:`LoadSegmentIds` and
    ``segments_info``.

    Returns a dict of

    - ``inputs``: (3, H, W) uint8 tensor.
    - ``data_samples``: :class:`PanopticDataSample` with the metainfo ``meta_keys`` and the ground truth. Of
      :class:`LoadPanopticMap` that is ``gt_panoptic_seg.segment_map`` (1, H, W), uint8 or int32 (torch has no
      arithmetic on uint16), and ``gt_segments`` with ``labels`` (S,) int64 and ``is_thing`` (S,) bool. Of
      :class:`LoadSegmentIds` it is ``gt_annotation``, a ``PanopticAnnotation``.

    Args:
        meta_keys: Keys that become metainfo, if present.
    """

    META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction',
                 'seg_map_path', 'segments_info')

    def __init__(self, meta_keys: Sequence[str] = META_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Convert the results of the pipeline to ``inputs`` and ``data_samples``."""
        sample = PanopticDataSample(metainfo={key: results[key] for key in self.meta_keys if key in results})
        if 'gt_seg_map' in results:
            segment_map = results['gt_seg_map']
            if segment_map.dtype != np.uint8:
                segment_map = segment_map.astype(np.int32)
            sample.gt_panoptic_seg = PixelData(segment_map=_to_tensor(segment_map[None]))
            sample.gt_segments = InstanceData(
                labels=torch.from_numpy(results['gt_segment_labels']),
                is_thing=torch.from_numpy(results['gt_segment_is_thing']))
        if 'gt_segment_ids' in results:
            sample.gt_annotation = PanopticAnnotation(
                torch.from_numpy(results['gt_segment_ids']), results['segments_info'])
        return dict(inputs=_to_tensor(results['img'].transpose(2, 0, 1)), data_samples=sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'


def _to_tensor(array: np.ndarray) -> torch.Tensor:
    # Copy: a crop is a view that would keep the whole image in memory, and a flip has negative strides.
    return torch.from_numpy(np.array(array, order='C'))
