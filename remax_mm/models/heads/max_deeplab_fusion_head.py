"""Fusion of mask slots into a panoptic map as in MaX-DeepLab: one argmax per pixel."""
from typing import List, Tuple, Union

import torch
from mmdet.registry import MODELS
from torch import Tensor

from .fuse_semantic import first_maximum
from .mask_rows import MaskRows, as_rows
from .panoptic_fusion_head import PanopticFusionHead, Segment, drop_small_segments


@torch.no_grad()
def fuse_panoptic_pixelwise(class_logits: Tensor,
                            mask_logits: Union[Tensor, MaskRows],
                            *,
                            num_things: int,
                            class_threshold: float = 0.7,
                            pixel_threshold: float = 0.4,
                            thing_area: int = 0,
                            stuff_area: int = 0) -> Tuple[Tensor, List[Segment]]:
    """Assign every pixel to its slot with the highest logit (pixel-wise merging of MaX-DeepLab).

    A slot is kept if its class is confident. A pixel is void if the slot with the highest logit is not kept,
    or if the softmax over the kept slots is not above the threshold (deeplab2
    model/post_processor/max_deeplab.py). All stuff of one class is one segment.

    Args:
        class_logits: (N, K + 1), things, stuff, then void.
        mask_logits: (N, H, W) at the size of the map, or its rows.
        num_things: number of thing classes; they come first.
        class_threshold: class probability that a slot must reach.
        pixel_threshold: softmax over the kept slots that a pixel must exceed.
        thing_area, stuff_area: minimum number of pixels of a thing segment and of a merged stuff segment.

    Returns:
        Map (H, W) int32 with 0 for void, and its segments in the order of their ids 1, 2, ..., which follows
        the slots. A segment's score is the mean of class times mask probability over its pixels.
    """
    class_scores, categories = class_logits.float().softmax(-1)[:, :-1].max(-1)  # (N,)
    is_kept = class_scores >= class_threshold
    kept, others = is_kept.nonzero().flatten(), (~is_kept).nonzero().flatten()
    rows = as_rows(mask_logits)
    segment_map = torch.zeros(rows.shape[1:], dtype=torch.int32, device=rows.device)
    if len(kept) == 0:
        return segment_map, []
    class_scores = class_scores[kept]

    # One segment for each kept thing slot and for each stuff class of the kept slots
    keys = [(category, slot if category < num_things else -1)
            for slot, category in zip(kept.tolist(), categories[kept].tolist())]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys), start=1)}
    segment_of_slot = torch.tensor([numbers[key] for key in keys], dtype=torch.int32, device=rows.device)

    totals = torch.zeros(len(numbers) + 1, dtype=torch.float64, device=rows.device)
    kept_rows, other_rows = rows.of_slots(kept), rows.of_slots(others)
    for strip, kept_logits in kept_rows:
        # The best kept slot at each pixel, and whether the pixel is assigned to it
        kept_logits = kept_logits.flatten(1)
        best, owner = first_maximum(kept_logits)  # (pixels,)
        log_sum = best + (kept_logits - best).exp_().sum(0).log_()  # in the order of `torch.logsumexp`
        probability = (best - log_sum).exp_()
        is_assigned = probability > pixel_threshold
        if len(others) > 0:
            is_assigned &= best >= other_rows.largest(strip.start, strip.stop).flatten()

        segments_of_pixels = segment_of_slot.index_select(0, owner) * is_assigned
        pixel_scores = class_scores.index_select(0, owner) * probability
        totals.index_add_(0, segments_of_pixels, pixel_scores.double())
        segment_map[strip] = segments_of_pixels.view_as(segment_map[strip])

    areas = torch.bincount(segment_map.flatten(), minlength=len(numbers) + 1)
    scores, sizes = torch.stack([totals / areas.clamp(min=1), areas]).tolist()
    segments = [
        Segment(number, category, category < num_things, scores[number])
        for (category, _), number in numbers.items()
    ]
    new_ids, segments = drop_small_segments(segments, sizes[1:], thing_area, stuff_area)
    new_map = segment_map.new_tensor(new_ids).index_select(0, segment_map.flatten())
    return new_map.view_as(segment_map), segments


@MODELS.register_module()
class MaXFusionHead(PanopticFusionHead):
    """Fusion head of MaX-DeepLab: pixel-wise merging, see :func:`fuse_panoptic_pixelwise`."""

    PANOPTIC_KEYS = ('class_threshold', 'pixel_threshold', 'thing_area', 'stuff_area')
    fuse = staticmethod(fuse_panoptic_pixelwise)
