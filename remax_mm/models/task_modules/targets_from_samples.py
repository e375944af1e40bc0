"""Ground truth of a batch at mask stride, built on the model's device from one index map per image."""
import logging
from functools import lru_cache
from typing import List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from remax_mm.structures import VOID_SEGMENT, PanopticTargets


def build_panoptic_targets(data_samples: Sequence,
                           num_classes: int,
                           stride: Optional[int] = None,
                           size: Optional[Tuple[int, int]] = None,
                           num_slots: Optional[int] = None) -> PanopticTargets:
    """Turn the index maps of a batch into masks, on the device where the maps are.

    The maps are strided, never interpolated (deeplab2's ``[::s, ::s]``). A segment without a pixel left at
    that stride vanishes, and stuff segments that share a class become one segment.

    Args:
        data_samples: B samples with ``gt_panoptic_seg.segment_map`` (1, H, W) of one size, values in [0, S],
            and ``gt_segments`` with ``labels`` (S,) in [0, K) and ``is_thing`` (S,) bool.
        num_classes: K, things and stuff together.
        stride: Input pixels per mask pixel; taken from ``size`` where None.
        size: (h, w) of the masks, checked against the maps; follows from ``stride`` where None.
        num_slots: N. An image with more visible segments keeps its N largest, the others become void, because
            a segment that no slot can take would give an unbounded mask-ID cross entropy. None keeps all.

    Returns:
        Targets with M the largest number of segments of an image, at least 1.

    Raises:
        ValueError: a sample has no map, maps differ in size, the size fits no stride, or a map or a label
            table holds a value out of range.
    """
    maps = _collect_maps(data_samples)
    stride = _check_stride(maps.shape[-2:], stride, size)
    index = maps[:, ::stride, ::stride].long()
    labels, is_thing = _collect_tables(data_samples, index, num_classes)

    # One segment per stuff class: each map value turns into the first one of the same class.
    index = _look_up(_merge_stuff(labels, is_thing), index)

    # The segments that count are numbered from 1 in table order, all others turn into void.
    kept = _select_segments(index, labels.shape[1], num_slots)
    position = kept.cumsum(1) * kept
    index = _look_up(position, index)
    num_segments = max(int(position.max()), 1)

    # Their labels, preceded by that of void.
    labels = labels.new_full((len(labels), num_segments + 1),
                             num_classes).scatter_(1, position, labels.masked_fill(~kept, num_classes))

    numbers = torch.arange(1, num_segments + 1, device=index.device).view(-1, 1, 1)
    return PanopticTargets(
        masks=(index[:, None] == numbers).float(),
        labels=labels[:, 1:].contiguous(),
        void=index == VOID_SEGMENT,
        sem_seg=_look_up(labels, index))


def _look_up(table: Tensor, index: Tensor) -> Tensor:
    """(B, h, w) values of each image's own row of ``table`` (B, S + 1) at ``index`` (B, h, w)."""
    return table.gather(1, index.flatten(1)).view_as(index)


def _merge_stuff(labels: Tensor, is_thing: Tensor) -> Tensor:
    """Of each segment the first stuff segment of its class, or itself if a thing; (B, S + 1) indices."""
    same = (labels[:, :, None] == labels[:, None, :]) & ~is_thing[:, :, None] & ~is_thing[:, None, :]
    same |= torch.eye(labels.shape[1], dtype=torch.bool, device=labels.device)
    return same.byte().argmax(-1)  # index of the first maximum


def _select_segments(index: Tensor, table_length: int, num_slots: Optional[int]) -> Tensor:
    """Segments visible in ``index`` (B, h, w), at most the ``num_slots`` largest; (B, S + 1) bool."""
    image = torch.arange(len(index), device=index.device)
    area = torch.bincount(
        (index + image.view(-1, 1, 1) * table_length).flatten(),
        minlength=len(index) * table_length).view(-1, table_length)
    kept = area > 0
    kept[:, VOID_SEGMENT] = False
    if num_slots is not None and table_length - 1 > num_slots and bool((kept.sum(1) > num_slots).any()):
        _warn_of_dropped_segments(num_slots)
        by_size = area.masked_fill(~kept, 0).argsort(dim=1, descending=True, stable=True)
        kept[image[:, None], by_size[:, num_slots:]] = False
    return kept


def _collect_maps(data_samples: Sequence) -> Tensor:
    maps: List[Tensor] = []
    for sample in data_samples:
        if 'gt_panoptic_seg' not in sample:
            raise ValueError('Expected each sample to carry `gt_panoptic_seg` (LoadPanopticMap and '
                             f'PackPanopticInputs in the pipeline), but {sample.get("img_path")} has none')
        maps.append(sample.gt_panoptic_seg.segment_map[0])
    sizes = {tuple(m.shape) for m in maps}
    if len(sizes) > 1:
        raise ValueError('Expected the segment maps of a batch to be padded to one size '
                         f'(PanopticDataPreprocessor does), but got {sorted(sizes)}')
    return torch.stack(maps)


def _check_stride(map_size: Sequence[int], stride: Optional[int], size: Optional[Tuple[int, int]]) -> int:
    height, width = map_size
    if size is None:
        if stride is None:
            raise ValueError('Expected `stride` or `size`, but got neither')
        size = ((height - 1) // stride + 1, (width - 1) // stride + 1)
    if stride is None:
        stride = max((height - 1) // max(size[0] - 1, 1), 1)
    expected = ((size[0] - 1) * stride + 1, (size[1] - 1) * stride + 1)
    if (height, width) != expected:
        raise ValueError(
            f'Expected an input of {expected} for masks of {tuple(size)} at stride {stride} (input = '
            f'(mask - 1) * stride + 1 on both axes), but the segment maps are {(height, width)}')
    return stride


def _collect_tables(data_samples: Sequence, index: Tensor, num_classes: int) -> Tuple[Tensor, Tensor]:
    """Labels (B, S + 1), K for void (column 0) and where padded, and is_thing (B, S + 1) bool."""
    tables = [sample.gt_segments for sample in data_samples]
    labels = pad_sequence([t.labels.to(index) for t in tables], batch_first=True, padding_value=-1)
    is_thing = pad_sequence([t.is_thing.to(index.device) for t in tables], batch_first=True)
    labels = F.pad(labels, (1, 0), value=-1)
    is_thing = F.pad(is_thing, (1, 0), value=False)

    # One transfer for both checks: an index out of range would end a CUDA process without a message.
    found = torch.stack([index.amax((1, 2)), labels.amax(1)]).tolist()
    for sample, table, largest_index, largest_label in zip(data_samples, tables, *found):
        if largest_index > len(table.labels):
            raise ValueError(f'Expected indices up to {len(table.labels)}, the number of segments, in the '
                             f'segment map of {sample.get("img_path")}, but got {largest_index}')
        if largest_label >= num_classes:
            raise ValueError(f'Expected labels below num_classes={num_classes}, but {sample.get("img_path")} '
                             f'has a segment of class {largest_label}')
    return labels.masked_fill(labels < 0, num_classes), is_thing


@lru_cache(maxsize=None)
def _warn_of_dropped_segments(num_slots: int) -> None:
    print_log(
        f'An image has more visible segments than the {num_slots} mask slots; its smallest segments '
        'become void. This is said once.',
        logger='current',
        level=logging.WARNING)
