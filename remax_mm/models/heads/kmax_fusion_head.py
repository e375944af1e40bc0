"""Fusion of mask slots into a panoptic map as in kMaX-DeepLab: one mask after the other."""
from typing import Dict, List, NamedTuple, Sequence, Tuple, Union

import torch
from mmdet.registry import MODELS
from torch import Tensor

from .mask_merging import PAIRS_ABOVE, MaskMerging, PairMerging, collect_masks
from .mask_rows import MaskRows, as_rows
from .panoptic_fusion_head import PanopticFusionHead, Segment, drop_small_segments


class Candidate(NamedTuple):
    """A mask that may become a segment.

    Attributes:
        mask: number of the mask.
        category: class in [0, K).
        area: number of its pixels.
        score: class probability times mean mask probability in [0, 1].
    """
    mask: int
    category: int
    area: int
    score: float


@torch.no_grad()
def fuse_panoptic(class_logits: Tensor,
                  mask_logits: Union[Tensor, MaskRows],
                  *,
                  num_things: int,
                  thing_threshold: float = 0.7,
                  stuff_threshold: float = 0.5,
                  pixel_threshold: float = 0.4,
                  overlap_threshold: float = 0.8,
                  class_order_weight: float = 1.0,
                  mask_order_weight: float = 1.0,
                  thing_area: int = 0,
                  stuff_area: int = 0) -> Tuple[Tensor, List[Segment]]:
    """Paste the masks onto an empty map, most confident slot first (mask-wise merging of kMaX-DeepLab).

    deeplab2 model/post_processor/max_deeplab.py; thresholds are strict as in bytedance/kmax-deeplab
    kmax_deeplab/kmax_model.py. A rejected slot occupies no pixels; all stuff of one class is one segment.

    Args:
        class_logits: (N, K + 1), things, stuff, then void.
        mask_logits: (N, H, W) at the size of the map, or its rows.
        num_things: number of thing classes; they come first.
        thing_threshold, stuff_threshold: class probability that a slot must exceed.
        pixel_threshold: softmax over slots that a slot's own pixels must exceed.
        overlap_threshold: fraction of a slot's own pixels that must be exceeded by those still free.
        class_order_weight, mask_order_weight: exponents of class and mean mask probability in the order.
        thing_area, stuff_area: minimum number of pixels of a thing segment and of a merged stuff segment.

    Returns:
        Map (H, W) int32 with 0 for void, and its segments in the order of their ids 1, 2, ...
    """
    class_scores, categories = class_logits.float().softmax(-1)[:, :-1].max(-1)  # (N,)
    confident = class_scores > torch.where(categories < num_things, thing_threshold, stuff_threshold)
    slots = confident.nonzero().flatten()
    rows = as_rows(mask_logits)
    if len(slots) == 0:
        return torch.zeros(rows.shape[1:], dtype=torch.int32, device=rows.device), []

    merging_class = PairMerging if pixel_threshold > PAIRS_ABOVE else MaskMerging
    merging = merging_class(len(slots), rows.shape[1:], rows.device)
    areas, sums = collect_masks(rows, slots, pixel_threshold, merging.add_rows)

    # Copy what the host needs, in the order in which the masks are pasted.
    class_scores, mask_scores = class_scores[slots], (sums / areas.clamp(min=1)).float()
    order_scores = class_scores**class_order_weight * mask_scores**mask_order_weight
    order = order_scores.argsort(descending=True, stable=True)
    columns = (order, categories[slots][order], areas[order], (class_scores * mask_scores)[order])
    table = merging.to_host(torch.stack([column.double() for column in columns], dim=1)).tolist()
    candidates = [
        Candidate(int(mask), int(category), int(area), score) for mask, category, area, score in table
    ]

    segments, segment_areas = paste_masks(merging, candidates, num_things, overlap_threshold)
    new_ids, segments = drop_small_segments(segments, segment_areas, thing_area, stuff_area)
    return merging.segment_map(new_ids), segments


def paste_masks(merging: Union[MaskMerging, PairMerging], candidates: Sequence[Candidate], num_things: int,
                overlap_threshold: float) -> Tuple[List[Segment], List[int]]:
    """Paste each mask of which enough pixels are free.

    Args:
        merging: holds the masks; the accepted ones are pasted there.
        candidates: in the order of pasting.
        num_things, overlap_threshold: see :func:`fuse_panoptic`.

    Returns:
        The segments and their areas.
    """
    segments: List[Segment] = []
    areas: List[int] = []
    stuff_ids: Dict[int, int] = {}
    for mask, category, area, score in candidates:
        free_area = merging.free_area(mask)
        if area == 0 or free_area <= overlap_threshold * area:
            continue
        is_thing = category < num_things
        segment_id = len(segments) + 1 if is_thing else stuff_ids.setdefault(category, len(segments) + 1)
        merging.paste(mask, segment_id)
        if segment_id > len(segments):
            segments.append(Segment(segment_id, category, is_thing, score))
            areas.append(0)
        areas[segment_id - 1] += free_area
    return segments, areas


@MODELS.register_module()
class KMaXFusionHead(PanopticFusionHead):
    """Fusion head of kMaX-DeepLab: mask-wise merging, see :func:`fuse_panoptic`."""

    PANOPTIC_KEYS = ('thing_threshold', 'stuff_threshold', 'pixel_threshold', 'overlap_threshold',
                     'class_order_weight', 'mask_order_weight', 'thing_area', 'stuff_area')
    fuse = staticmethod(fuse_panoptic)
