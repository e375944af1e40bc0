"""Fusion on all masks of an image at once, pasting one mask after the other: a plain reference.

Arguments and results are those of the functions of the same name in ``remax_mm.models.heads``.
"""
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from mmdet.structures.mask import mask2bbox
from mmengine.structures import InstanceData
from torch import Tensor

from remax_mm.models.heads import Segment
from remax_mm.models.layers import resize_to

Fused = Tuple[Tensor, List[Segment]]


def restore_size(mask_logits: Tensor, input_size: Tuple[int, int], image_size: Tuple[int, int],
                 output_size: Optional[Tuple[int, int]]) -> Tensor:
    """Resize the mask logits of one image from mask stride to the size of the image.

    Fusion heads use ``restored_rows``, which gives the same in strips of rows.

    Args:
        mask_logits: (N, h, w).
        input_size: of the padded network input.
        image_size: of the image inside it, at the top left; the rest is padding.
        output_size: size of the result, None for ``image_size``.

    Returns:
        (N, H, W).
    """
    logits = resize_to(mask_logits[None], input_size)[..., :image_size[0], :image_size[1]]
    return (logits if output_size is None else resize_to(logits, output_size))[0]


def fuse_panoptic(class_logits: Tensor,
                  mask_logits: Tensor,
                  *,
                  num_things: int,
                  thing_threshold: float = 0.7,
                  stuff_threshold: float = 0.5,
                  pixel_threshold: float = 0.4,
                  overlap_threshold: float = 0.8,
                  class_order_weight: float = 1.0,
                  mask_order_weight: float = 1.0,
                  thing_area: int = 0,
                  stuff_area: int = 0) -> Fused:
    class_scores, categories = class_logits.float().softmax(-1)[:, :-1].max(-1)  # (N,)
    probability = mask_logits.float().softmax(dim=0)  # (N, H, W)
    own = probability > pixel_threshold
    own_area = own.flatten(1).sum(1)  # (N,)
    mask_scores = (probability * own).flatten(1).sum(1) / own_area.clamp(min=1)
    order_scores = class_scores**class_order_weight * mask_scores**mask_order_weight

    # Only confident slots with pixels are used; only these are copied to the host.
    confident = class_scores > torch.where(categories < num_things, thing_threshold, stuff_threshold)
    order = order_scores.argsort(descending=True, stable=True)
    order = order[(confident & (own_area > 0))[order]]
    rows = torch.stack([order, categories[order], own_area[order]], dim=1).tolist()
    scores = (class_scores * mask_scores)[order].tolist()

    segment_map = torch.zeros(mask_logits.shape[1:], dtype=torch.int32, device=mask_logits.device)
    segments: List[Segment] = []
    stuff_ids: Dict[int, int] = {}
    for (slot, category, area), score in zip(rows, scores):
        free = own[slot] & (segment_map == 0)
        if int(free.sum()) <= overlap_threshold * area:
            continue
        is_thing = category < num_things
        segment_id = len(segments) + 1 if is_thing else stuff_ids.setdefault(category, len(segments) + 1)
        segment_map[free] = segment_id
        if segment_id > len(segments):
            segments.append(Segment(segment_id, category, is_thing, score))
    return drop_small_segments(segment_map, segments, thing_area, stuff_area)


def drop_small_segments(segment_map: Tensor, segments: Sequence[Segment], thing_area: int,
                        stuff_area: int) -> Fused:
    """Set segments below their area limit to void and renumber the others."""
    areas = torch.bincount(segment_map.flatten().long(), minlength=len(segments) + 1).tolist()
    kept = [s for s in segments if areas[s.id] >= max(thing_area if s.is_thing else stuff_area, 1)]
    if len(kept) == len(segments):
        return segment_map, list(segments)
    new_ids = segment_map.new_zeros(len(segments) + 1)
    for new_id, segment in enumerate(kept, start=1):
        new_ids[segment.id] = new_id
    kept = [segment._replace(id=new_id) for new_id, segment in enumerate(kept, start=1)]
    return new_ids[segment_map.long()], kept


def fuse_instances(class_logits: Tensor,
                   mask_logits: Tensor,
                   *,
                   num_things: int,
                   pixel_threshold: float = 0.4,
                   max_per_image: int = 100) -> InstanceData:
    class_scores = class_logits.float().softmax(-1)[:, :-1]  # (N, K)
    num_classes = class_scores.shape[1]
    scores, pairs = class_scores.flatten().topk(min(max_per_image, class_scores.numel()))
    slots, labels = pairs // num_classes, pairs % num_classes
    things = labels < num_things
    scores, slots, labels = scores[things], slots[things], labels[things]

    probability = mask_logits.float().softmax(dim=0)  # (N, H, W)
    own = probability > pixel_threshold
    mask_scores = (probability * own).flatten(1).sum(1) / (own.flatten(1).sum(1) + 1e-6)
    masks = own[slots]
    return InstanceData(
        masks=masks, scores=scores * mask_scores[slots], labels=labels, bboxes=mask2bbox(masks))


def fuse_semantic(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    classes = class_logits.float().softmax(-1)[:, :-1]  # (N, K)
    probability = mask_logits.float().softmax(dim=0)  # (N, H, W)
    return torch.einsum('nk,nhw->khw', classes, probability).argmax(dim=0)


def fuse_panoptic_pixelwise(class_logits: Tensor,
                            mask_logits: Tensor,
                            *,
                            num_things: int,
                            class_threshold: float = 0.7,
                            pixel_threshold: float = 0.4,
                            thing_area: int = 0,
                            stuff_area: int = 0) -> Fused:
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
    totals = torch.zeros(len(numbers) + 1, dtype=torch.float64).index_add_(0, flat, pixel_scores.double())
    areas = torch.bincount(flat, minlength=len(numbers) + 1)
    scores = (totals / areas.clamp(min=1)).tolist()
    segments = [
        Segment(number, category, category < num_things, scores[number])
        for (category, _), number in numbers.items()
    ]
    return drop_small_segments(segment_map, segments, thing_area, stuff_area)
