"""Bring the ground truth into the order of the mask slots."""
from typing import Sequence

import torch

from remax_mm.structures import MaskPrediction, Match, PanopticTargets, SlotTargets, full_precision

MIN_WEIGHT = 1e-5
"""Minimum of the weights of a matched slot, and of the class weight of any slot (kMaX-DeepLab)."""


@torch.no_grad()
def assign_targets_to_slots(prediction: MaskPrediction, targets: PanopticTargets,
                            matches: Sequence[Match]) -> SlotTargets:
    """Bring segments, labels and loss weights into the order of the mask slots.

    Segments without a slot (more segments than slots) become void. Follows ``process_gt`` of
    bytedance/kmax-deeplab, kmax_deeplab/modeling/criterion.py.

    Args:
        prediction: the matched output.
        targets: ground truth.
        matches: one per image.

    Returns:
        Targets in at least float32, without gradient.
    """
    class_logits = full_precision(prediction.class_logits)
    num_images, num_slots = class_logits.shape[:2]
    slot, segment, mask_dice, class_similarity = (torch.cat(part) for part in list(zip(*matches))[:4])
    image = torch.cat([torch.full_like(match.slot, index) for index, match in enumerate(matches)])

    # The slot and the area of each pixel. The last segment is void, and so is the last slot.
    slot_of_segment = slot.new_full((num_images, targets.labels.shape[1] + 1), num_slots)
    slot_of_segment[image, segment] = slot
    owner = slot_of_segment.gather(1, targets.owner.flatten(1))
    area = class_logits.new_zeros(num_images, num_slots + 1)
    area[image, slot] = targets.area[image, segment].to(area)
    inverse_area = owner.shape[1] / area.clamp(min=1).gather(1, owner)

    # One-hot labels, void for slots without a segment
    class_targets = torch.zeros_like(class_logits)
    class_targets[..., -1] = 1
    class_targets[image, slot, -1] = 0
    class_targets[image, slot, targets.labels[image, segment]] = 1

    # PQ is recognition times segmentation: the loss of each factor is weighted by the other factor
    class_weights = torch.stack([match.void_ratio for match in matches]).to(class_logits)
    class_weights[image, slot] = mask_dice.to(class_weights)
    mask_weights = torch.zeros_like(class_weights)
    mask_weights[image, slot] = class_similarity.to(mask_weights).clamp(min=MIN_WEIGHT)

    return SlotTargets(
        owner=owner.view_as(targets.owner),
        area=area[:, :-1],
        class_targets=class_targets,
        class_weights=class_weights.clamp(min=MIN_WEIGHT),
        mask_weights=mask_weights,
        sem_seg=targets.sem_seg,
        inverse_area=inverse_area.view_as(targets.owner))
