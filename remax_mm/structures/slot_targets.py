"""Ground truth brought into the order of the mask slots, as the losses want it."""
from typing import NamedTuple

from torch import Tensor


class SlotTargets(NamedTuple):
    """What each mask slot of a batch should predict, once segments are matched to slots.

    Attributes:
        masks: (B, N, h, w) float in [0, 1], all zero for unmatched slots; overlapping segments share a pixel.
        class_targets: (B, N, K + 1) in [0, 1], one-hot, void for unmatched slots; ReClass adds to the other
            classes, so that a row then sums to more than 1.
        class_weights: (B, N) >= 1e-5, Dice of a matched slot, share of void under an unmatched one.
        mask_weights: (B, N), class probability of a matched slot (>= 1e-5), 0 for an unmatched one.
        void: (B, h, w) bool, void pixels and those of segments that got no slot.
        sem_seg: (B, h, w) int64 in [0, K), K where void.
        inverse_area: (B, h, w) > 0, pixels of the map over pixels of the segment that a pixel belongs to.
    """
    masks: Tensor
    class_targets: Tensor
    class_weights: Tensor
    mask_weights: Tensor
    void: Tensor
    sem_seg: Tensor
    inverse_area: Tensor
