"""MaX-DeepLab's way from mask slots to a panoptic map: one argmax per pixel."""
from typing import List, Tuple

import torch
from mmdet.registry import MODELS
from torch import Tensor

from .panoptic_fusion_head import PanopticFusionHead, Segment, drop_small_segments


def fuse_panoptic_pixelwise(class_logits: Tensor,
                            mask_logits: Tensor,
                            *,
                            num_things: int,
                            class_threshold: float = 0.7,
                            pixel_threshold: float = 0.4,
                            thing_area: int = 0,
                            stuff_area: int = 0) -> Tuple[Tensor, List[Segment]]:
    """Give every pixel to its slot of highest logit, if both are sure (MaX-DeepLab's pixel-wise merging).

    A slot survives by its class. A pixel is void if its slot of highest logit, of all slots, does not
    survive, or if the softmax over the survivors is not above its threshold (deeplab2
    model/post_processor/max_deeplab.py). Stuff of one class is one segment.

    Args:
        class_logits: (N, K + 1), things, stuff, then void.
        mask_logits: (N, H, W) at the size of the wanted map.
        num_things: leading classes that are things.
        class_threshold: class probability that a slot must reach.
        pixel_threshold: softmax over the surviving slots that a pixel must exceed.
        thing_area, stuff_area: least pixels of a thing segment, and of a merged stuff segment.

    Returns:
        Map (H, W) int32 with 0 for void, and its segments in the order of their ids 1, 2, ..., which is that
        of the slots. A segment's score is the mean over its pixels of class times mask probability.
    """
    class_scores, categories = class_logits.float().softmax(-1)[:, :-1].max(-1)  # (N,)
    survivors = (class_scores >= class_threshold).nonzero().flatten()
    if len(survivors) == 0:
        return mask_logits.new_zeros(mask_logits.shape[1:], dtype=torch.int32), []

    # The best surviving slot at each pixel, and whether it counts there
    surviving_logits = mask_logits.float()[survivors]
    best, owner = surviving_logits.max(0)  # (H, W)
    probability = (best - surviving_logits.logsumexp(0)).exp()
    counts = (best >= mask_logits.float().amax(0)) & (probability > pixel_threshold)

    # One segment for each surviving thing and for each class of surviving stuff
    keys = [(category, slot if category < num_things else -1)
            for slot, category in zip(survivors.tolist(), categories[survivors].tolist())]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys), start=1)}
    segment_of_slot = torch.tensor([numbers[key] for key in keys], dtype=torch.int32, device=owner.device)
    segment_map = segment_of_slot[owner] * counts

    flat = segment_map.flatten().long()
    pixel_scores = (class_scores[survivors][owner] * probability).flatten()
    totals = torch.zeros(len(numbers) + 1, device=owner.device).index_add_(0, flat, pixel_scores)
    areas = torch.bincount(flat, minlength=len(numbers) + 1)
    scores = (totals / areas.clamp(min=1)).tolist()
    segments = [
        Segment(number, category, category < num_things, scores[number])
        for (category, _), number in numbers.items()
    ]
    return drop_small_segments(segment_map, segments, thing_area, stuff_area)


@MODELS.register_module()
class MaXFusionHead(PanopticFusionHead):
    """MaX-DeepLab's: :func:`fuse_panoptic_pixelwise`, pixel by pixel."""

    PANOPTIC_KEYS = ('class_threshold', 'pixel_threshold', 'thing_area', 'stuff_area')
    fuse = staticmethod(fuse_panoptic_pixelwise)
