"""Bring the ground truth into the order of the mask slots."""
from typing import Sequence, Tuple

import torch
from torch import Tensor

from remax_mm.structures import MaskPrediction, Match, PanopticTargets, SlotTargets, full_precision

MIN_WEIGHT = 1e-5
"""Minimum of the weights of a matched slot, and of the class weight of any slot (kMaX-DeepLab)."""


@torch.no_grad()
def assign_targets_to_slots(prediction: MaskPrediction, targets: PanopticTargets,
                            matches: Sequence[Match]) -> SlotTargets:
    """Bring segments, labels and loss weights into the order of the mask slots.

    Segments that overlap get equal shares of their common pixels. Segments without a slot (more segments than
    slots) become void. Follows ``process_gt`` of bytedance/kmax-deeplab, kmax_deeplab/modeling/criterion.py.

    Args:
        prediction: the matched output; the void ratio is computed from its masks before relaxation.
        targets: ground truth at the resolution of ``prediction.mask_logits``.
        matches: one per image.

    Returns:
        Targets in at least float32, without gradient.
    """
    mask_logits = full_precision(prediction.mask_logits)
    slot = torch.cat([match.slot for match in matches])
    segment = torch.cat([match.segment for match in matches])
    image = torch.cat([torch.full_like(match.slot, index) for index, match in enumerate(matches)])

    # Masks, and the area of the segment at each pixel, for the segments with a slot
    shares, uncovered, pixel_area = _share_pixels(targets.masks.to(mask_logits.dtype), image, segment)
    void = targets.void | uncovered
    masks = torch.zeros_like(mask_logits)
    masks[image, slot] = shares[image, segment]
    inverse_area = pixel_area[0].numel() / pixel_area.clamp(min=1)

    # One-hot labels, void for slots without a segment
    class_targets = mask_logits.new_zeros(prediction.class_logits.shape)
    class_targets[..., -1] = 1
    class_targets[image, slot, -1] = 0
    class_targets[image, slot, targets.labels[image, segment]] = 1

    # Void ratio: the fraction of each slot's mask, softmax over the slots, that lies on void pixels
    slot_masks = mask_logits.softmax(dim=1).flatten(2)
    void_area = torch.einsum('bnp,bp->bn', slot_masks, void.flatten(1).to(slot_masks))
    void_ratio = void_area / (slot_masks.sum(-1) + 1e-5)

    # PQ is recognition times segmentation: the loss of each factor is weighted by the other factor
    class_weights = void_ratio
    class_weights[image, slot] = torch.cat([match.mask_dice for match in matches]).to(class_weights)
    mask_weights = torch.zeros_like(class_weights)
    class_similarity = torch.cat([match.class_similarity for match in matches]).to(mask_weights)
    mask_weights[image, slot] = class_similarity.clamp(min=MIN_WEIGHT)

    return SlotTargets(masks, class_targets, class_weights.clamp(min=MIN_WEIGHT), mask_weights, void,
                       targets.sem_seg, inverse_area)


def _share_pixels(masks: Tensor, image: Tensor, segment: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Divide each pixel among the matched segments that cover it.

    Returns:
        Shares (B, M, h, w) in [0, 1], pixels without a matched segment (B, h, w) bool, and the area in pixels
        of the segments that each pixel belongs to (B, h, w).
    """
    has_slot = masks.new_zeros(masks.shape[:2])
    has_slot[image, segment] = 1

    # The count is compared before the division: the sum of n shares of 1/n may be rounded to just below 1, so
    # that the reference drops such a pixel.
    count = torch.einsum('bmhw,bm->bhw', masks, has_slot)
    shares = masks / count.clamp(min=1).unsqueeze(1)
    area = shares.sum(dim=(2, 3)) * has_slot
    return shares, count < 1, torch.einsum('bmhw,bm->bhw', shares, area)
