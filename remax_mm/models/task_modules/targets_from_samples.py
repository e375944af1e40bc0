"""Build the ground truth of a batch at the resolution of the masks, from one index map per image."""
import logging
from functools import lru_cache
from typing import List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.logging import print_log
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from remax_mm.structures import VOID_SEGMENT, PanopticTargets
from ..layers import find_stride, not_compiled

LARGEST_KEY = 'gt_largest'
"""Metainfo of a sample that :func:`note_largest_values` sets."""


@not_compiled
def build_panoptic_targets(data_samples: Sequence[DetDataSample],
                           num_classes: int,
                           size: Sequence[int],
                           num_slots: Optional[int] = None) -> PanopticTargets:
    """Number the segments of a batch at the resolution of the masks, on the device of the index maps.

    The maps are strided, never interpolated (deeplab2's ``[::s, ::s]``). A segment without a pixel at this
    stride is dropped, and stuff segments of one class become one segment. It does not wait for the device if
    :func:`note_largest_values` was called for all samples.

    Args:
        data_samples: B samples with ``gt_panoptic_seg.segment_map`` (1, H, W) of one size, values in [0, S],
            and ``gt_segments`` with ``labels`` (S,) in [0, K) and ``is_thing`` (S,) bool.
        num_classes: K, things and stuff together.
        size: (h, w) of the masks.
        num_slots: N. If an image has more visible segments, its N largest are kept and the others become
            void, because the mask-ID cross entropy of a segment without a slot is unbounded. None keeps all.

    Returns:
        Targets with M = the largest S of the batch, at most N and at least 1. The kept segments of an image
        come first, in the order of its table.

    Raises:
        ValueError: a sample has no map, the maps differ in size, the size fits no stride, or a map or a label
            table has a value out of range.
    """
    for sample in data_samples:
        _check_sample(sample, num_classes)
    index, labels, is_thing = _stack_samples(data_samples, num_classes, size)
    numbers, area = _number_segments(index, labels, is_thing, num_slots)
    num_segments = area.shape[1] - 1

    # The label of each number. The last number is void, but all dropped segments write their label there.
    labels = labels.new_full(area.shape, num_classes).scatter_(1, numbers, labels)
    labels[:, num_segments] = num_classes
    owner = numbers.gather(1, index.flatten(1))
    return PanopticTargets(
        owner=owner.view_as(index),
        labels=labels[:, :-1],
        area=area[:, :-1],
        sem_seg=labels.gather(1, owner).view_as(index))


def note_largest_values(sample: DetDataSample) -> None:
    """Store the largest index of the map and the largest label of the table in the metainfo of a sample.

    To be called while the sample is on the CPU, so that :func:`build_panoptic_targets` can check both values
    without waiting for the device.
    """
    segment_map, labels = sample.gt_panoptic_seg.segment_map, sample.gt_segments.labels
    largest_label = int(labels.max()) if len(labels) else -1
    sample.set_metainfo({LARGEST_KEY: (int(segment_map.max()), largest_label)})


def _check_sample(sample: DetDataSample, num_classes: int) -> None:
    """Check that a sample has ground truth in range: an index out of range would end a CUDA process."""
    if 'gt_panoptic_seg' not in sample:
        raise ValueError('Expected each sample to have `gt_panoptic_seg` (LoadPanopticMap and '
                         f'PackPanopticInputs in the pipeline), but {sample.get("img_path")} has none')
    if LARGEST_KEY not in sample.metainfo:
        note_largest_values(sample)
    largest_index, largest_label = sample.metainfo[LARGEST_KEY]
    num_segments = len(sample.gt_segments.labels)
    if largest_index > num_segments:
        raise ValueError(f'Expected indices up to {num_segments}, the number of segments, in the segment map '
                         f'of {sample.get("img_path")}, but got {largest_index}')
    if largest_label >= num_classes:
        raise ValueError(f'Expected labels below num_classes={num_classes}, but {sample.get("img_path")} has '
                         f'a segment of class {largest_label}')


def _stack_samples(data_samples: Sequence[DetDataSample], num_classes: int,
                   size: Sequence[int]) -> Tuple[Tensor, Tensor, Tensor]:
    """Collect the ground truth of the samples.

    Returns:
        Index maps (B, h, w) int64, strided; labels (B, S + 1), K for void (column 0) and for padding;
        is_thing (B, S + 1) bool.
    """
    maps: List[Tensor] = [sample.gt_panoptic_seg.segment_map[0] for sample in data_samples]
    sizes = {tuple(segment_map.shape) for segment_map in maps}
    if len(sizes) > 1:
        raise ValueError('Expected the segment maps of a batch to be padded to one size '
                         f'(PanopticDataPreprocessor does this), but got {sorted(sizes)}')
    stride = find_stride(maps[0].shape, size)
    index = torch.stack([segment_map[::stride, ::stride] for segment_map in maps]).long()

    tables = [sample.gt_segments for sample in data_samples]
    labels = pad_sequence([t.labels.to(index) for t in tables], batch_first=True, padding_value=num_classes)
    is_thing = pad_sequence([t.is_thing.to(index.device) for t in tables], batch_first=True)
    return index, F.pad(labels, (1, 0), value=num_classes), F.pad(is_thing, (1, 0), value=False)


def _number_segments(index: Tensor, labels: Tensor, is_thing: Tensor,
                     num_slots: Optional[int]) -> Tuple[Tensor, Tensor]:
    """Number the visible segments of each image from 0, in the order of its table.

    Returns:
        (B, S + 1) int64, the number of each map value: one for all stuff segments of a class, M for void and
        for segments that are not visible or not among the ``num_slots`` largest; and (B, M + 1) int64, the
        pixels of each number.
    """
    # The first stuff segment of the same class for stuff, the segment itself for things
    table_length = labels.shape[1]
    same = (labels[:, :, None] == labels[:, None, :]) & ~is_thing[:, :, None] & ~is_thing[:, None, :]
    same |= torch.eye(table_length, dtype=torch.bool, device=labels.device)
    first = same.byte().argmax(-1)  # index of the first maximum

    # Areas in pixels, (B, S + 1)
    area = torch.zeros_like(labels).scatter_add_(1, index.flatten(1), torch.ones_like(index).flatten(1))
    area = torch.zeros_like(area).scatter_add_(1, first, area)
    area[:, VOID_SEGMENT] = 0

    # Only the table tells the number of segments without waiting for the device
    num_segments = max(table_length - 1, 1)
    kept = area > 0
    if num_slots is not None and num_segments > num_slots:
        _warn_of_dropped_segments(num_slots)
        by_size = area.argsort(dim=1, descending=True, stable=True)
        kept.scatter_(1, by_size[:, num_slots:], False)
        num_segments = num_slots
    numbers = (kept.cumsum(1) - 1).masked_fill(~kept, num_segments)
    area = area.new_zeros(len(area), num_segments + 1).scatter_add_(1, numbers, area)
    return numbers.gather(1, first), area


@lru_cache(maxsize=None)
def _warn_of_dropped_segments(num_slots: int) -> None:
    print_log(
        f'An image has more segments than the {num_slots} mask slots. Where more of them are visible at the '
        'resolution of the masks, the smallest become void. This message is logged once.',
        logger='current',
        level=logging.WARNING)
