"""Build the ground truth of a batch at the resolution of the masks, from one index map per image."""
import logging
from functools import lru_cache
from typing import List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from remax_mm.structures import VOID_SEGMENT, PanopticTargets
from ..layers import find_stride


def build_panoptic_targets(data_samples: Sequence,
                           num_classes: int,
                           size: Sequence[int],
                           num_slots: Optional[int] = None) -> PanopticTargets:
    """Turn the index maps of a batch into masks, on the device of the maps.

    The maps are strided, never interpolated (deeplab2's ``[::s, ::s]``). A segment without a pixel at this
    stride is dropped, and stuff segments of one class become one segment.

    Args:
        data_samples: B samples with ``gt_panoptic_seg.segment_map`` (1, H, W) of one size, values in [0, S],
            and ``gt_segments`` with ``labels`` (S,) in [0, K) and ``is_thing`` (S,) bool.
        num_classes: K, things and stuff together.
        size: (h, w) of the masks.
        num_slots: N. If an image has more visible segments, its N largest are kept and the others become
            void, because the mask-ID cross entropy of a segment without a slot is unbounded. None keeps all.

    Returns:
        Targets with M = the largest number of segments of an image, at least 1.

    Raises:
        ValueError: a sample has no map, the maps differ in size, the size fits no stride, or a map or a label
            table has a value out of range.
    """
    index, labels, is_thing = _stack_samples(data_samples, num_classes, size)
    numbers = _number_segments(index, labels, is_thing, num_slots)
    num_segments = max(int(numbers.max()), 1)

    # The map with the new numbers, and the label of each number. Number 0 is void, but all dropped segments
    # write their label there.
    index = numbers.gather(1, index.flatten(1)).view_as(index)
    labels = labels.new_full((len(labels), num_segments + 1), num_classes).scatter_(1, numbers, labels)
    labels[:, VOID_SEGMENT] = num_classes

    all_numbers = torch.arange(1, num_segments + 1, device=index.device).view(-1, 1, 1)
    return PanopticTargets(
        masks=(index[:, None] == all_numbers).float(),
        labels=labels[:, 1:].contiguous(),
        void=index == VOID_SEGMENT,
        sem_seg=labels.gather(1, index.flatten(1)).view_as(index))


def _stack_samples(data_samples: Sequence, num_classes: int,
                   size: Sequence[int]) -> Tuple[Tensor, Tensor, Tensor]:
    """Collect and check the ground truth of the samples.

    Returns:
        Index maps (B, h, w) int64, strided; labels (B, S + 1), K for void (column 0) and for padding;
        is_thing (B, S + 1) bool.
    """
    maps: List[Tensor] = []
    for sample in data_samples:
        if 'gt_panoptic_seg' not in sample:
            raise ValueError('Expected each sample to have `gt_panoptic_seg` (LoadPanopticMap and '
                             f'PackPanopticInputs in the pipeline), but {sample.get("img_path")} has none')
        maps.append(sample.gt_panoptic_seg.segment_map[0])
    sizes = {tuple(segment_map.shape) for segment_map in maps}
    if len(sizes) > 1:
        raise ValueError('Expected the segment maps of a batch to be padded to one size '
                         f'(PanopticDataPreprocessor does this), but got {sorted(sizes)}')
    stride = find_stride(maps[0].shape, size)
    index = torch.stack([segment_map[::stride, ::stride] for segment_map in maps]).long()

    tables = [sample.gt_segments for sample in data_samples]
    labels = pad_sequence([t.labels.to(index) for t in tables], batch_first=True, padding_value=-1)
    labels = F.pad(labels, (1, 0), value=-1)
    is_thing = pad_sequence([t.is_thing.to(index.device) for t in tables], batch_first=True)
    is_thing = F.pad(is_thing, (1, 0), value=False)

    # One transfer for both checks. An index out of range would end a CUDA process without a message.
    found = torch.stack([index.amax((1, 2)), labels.amax(1)]).tolist()
    for sample, table, largest_index, largest_label in zip(data_samples, tables, *found):
        if largest_index > len(table.labels):
            raise ValueError(f'Expected indices up to {len(table.labels)}, the number of segments, in the '
                             f'segment map of {sample.get("img_path")}, but got {largest_index}')
        if largest_label >= num_classes:
            raise ValueError(f'Expected labels below num_classes={num_classes}, but {sample.get("img_path")} '
                             f'has a segment of class {largest_label}')
    return index, labels.masked_fill(labels < 0, num_classes), is_thing


def _number_segments(index: Tensor, labels: Tensor, is_thing: Tensor, num_slots: Optional[int]) -> Tensor:
    """Number the visible segments of each image from 1, in the order of its table.

    Returns:
        (B, S + 1) int64, the number of each map value: one for all stuff segments of a class, 0 for void and
        for segments that are not visible or not among the ``num_slots`` largest.
    """
    # The first stuff segment of the same class for stuff, the segment itself for things
    batch_size, table_length = labels.shape
    same = (labels[:, :, None] == labels[:, None, :]) & ~is_thing[:, :, None] & ~is_thing[:, None, :]
    same |= torch.eye(table_length, dtype=torch.bool, device=labels.device)
    first = same.byte().argmax(-1)  # index of the first maximum

    # Areas in pixels, (B, S + 1)
    image = torch.arange(batch_size, device=index.device)
    offset_index = index + table_length * image.view(-1, 1, 1)
    area = offset_index.flatten().bincount(minlength=batch_size * table_length).view(batch_size, table_length)
    area = torch.zeros_like(area).scatter_add_(1, first, area)
    area[:, VOID_SEGMENT] = 0

    kept = area > 0
    if num_slots is not None and table_length - 1 > num_slots and bool((kept.sum(1) > num_slots).any()):
        _warn_of_dropped_segments(num_slots)
        by_size = area.argsort(dim=1, descending=True, stable=True)
        kept[image[:, None], by_size[:, num_slots:]] = False
    numbers = kept.cumsum(1) * kept
    return numbers.gather(1, first)


@lru_cache(maxsize=None)
def _warn_of_dropped_segments(num_slots: int) -> None:
    print_log(
        f'An image has more visible segments than the {num_slots} mask slots; its smallest segments '
        'become void. This message is logged once.',
        logger='current',
        level=logging.WARNING)
