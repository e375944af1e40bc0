"""Data preprocessor for mmdet's own mask transformers, whose ground truth comes from index maps."""
from typing import Tuple

import torch
import torch.nn.functional as F
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from ..layers import not_compiled
from .panoptic_data_preprocessor import pad_with_void

VOID_CLASS = 255
"""Value of unlabeled pixels in mmdet's ``gt_sem_seg``."""


class DeviceMasks:
    """Masks (M, H, W) on any device, with the methods of mmdet's ``BitmapMasks`` that its heads call."""

    def __init__(self, masks: Tensor) -> None:
        self.masks = masks

    def __len__(self) -> int:
        return len(self.masks)

    def to_tensor(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The masks (M, H, W)."""
        return self.masks.to(device=device, dtype=dtype)


def find_visible_things(segment_map: Tensor, labels: Tensor, is_thing: Tensor) -> Tensor:
    """Rows of the things that have a pixel, in the order of the table.

    To be called while the map is on the CPU, because it reads values.

    Args:
        segment_map: (1, H, W) in [0, S], 0 is void.
        labels: (S,) int64 in [0, K), K <= 255.
        is_thing: (S,) bool.

    Returns:
        (M,) int64 in [0, S).

    Raises:
        ValueError: a value of the map is not in the table, or a label is 255 or more.
    """
    area = torch.bincount(segment_map.flatten(), minlength=len(labels) + 1)
    if len(area) > len(labels) + 1:
        raise ValueError(
            f'Expected indices up to {len(labels)}, the number of segments, but got {len(area) - 1}')
    if len(labels) and int(labels.max()) >= VOID_CLASS:
        raise ValueError(f'Expected labels below {VOID_CLASS}, mmdet\'s void label, but got {labels.max()}')
    return torch.nonzero(is_thing & (area[1:] > 0)).flatten()


def split_segment_map(segment_map: Tensor, labels: Tensor,
                      visible_things: Tensor) -> Tuple[InstanceData, PixelData]:
    """Masks of things and a semantic map of things and stuff, as from mmdet's ``LoadPanopticAnnotations``.

    Args:
        segment_map: (1, H, W) in [0, S], 0 is void.
        labels: (S,) int64 in [0, K), K <= 255.
        visible_things: (M,) of :func:`find_visible_things`.

    Returns:
        ``labels`` (M,) and ``masks`` (M, H, W) of these things; and ``sem_seg`` (1, H, W) int64, 255 for
        void.
    """
    index = segment_map[0].long()
    masks = index == visible_things.view(-1, 1, 1) + 1
    class_of_index = F.pad(labels, (1, 0), value=VOID_CLASS)
    return (InstanceData(labels=labels[visible_things],
                         masks=DeviceMasks(masks)), PixelData(sem_seg=class_of_index[index][None]))


@MODELS.register_module()
class MaskFormerDataPreprocessor(DetDataPreprocessor):
    """mmdet's data preprocessor for samples of :class:`PackPanopticInputs` and mmdet's own heads.

    In training, the index map of each sample is padded with void to the size of the batch, and
    :func:`split_segment_map` converts it to ``gt_instances`` and ``gt_sem_seg`` on the device. Workers send
    one map per image instead of a stack of masks, and panopticapi is not needed.

    Arguments as in ``DetDataPreprocessor``. ``pad_mask`` and ``pad_seg``, also those of ``batch_augments``,
    stay False: there is nothing to pad before the maps are split.
    """

    @not_compiled
    def forward(self, data: dict, training: bool = False) -> dict:
        """Convert collated ``inputs`` and ``data_samples`` to a batch.

        Raises:
            ValueError: in training, a sample has no index map, or its map does not fit its table.
        """
        if training:
            for sample in data['data_samples']:
                _note_visible_things(sample)  # before the sample is moved to the device
        data = super().forward(data, training)
        if training:
            for sample in data['data_samples']:
                segment_map = pad_with_void(sample.gt_panoptic_seg.segment_map, *sample.batch_input_shape)
                sample.gt_instances, sample.gt_sem_seg = split_segment_map(segment_map,
                                                                           sample.gt_segments.labels,
                                                                           sample.gt_instances.visible_things)
        return data


def _note_visible_things(sample: DetDataSample) -> None:
    if 'gt_panoptic_seg' not in sample:
        raise ValueError('Expected each sample to have `gt_panoptic_seg` (LoadPanopticMap and '
                         f'PackPanopticInputs in the pipeline), but {sample.get("img_path")} has none')
    table = sample.gt_segments
    try:
        things = find_visible_things(sample.gt_panoptic_seg.segment_map, table.labels, table.is_thing)
    except ValueError as error:
        raise ValueError(f'{error}, in {sample.get("img_path")}') from error
    sample.gt_instances = InstanceData(visible_things=things)
