"""Ground truth in the order of the mask slots."""
from typing import NamedTuple

from torch import Tensor


class SlotTargets(NamedTuple):
    """What each mask slot of a batch should predict, after segments were matched to slots.

    Attributes:
        owner: (B, h, w) int64, the mask slot in [0, N) that each pixel belongs to, N for void pixels and for
            the pixels of segments without a slot.
        area: (B, N), pixels of each slot; 0 for an unmatched slot.
        class_targets: (B, N, K + 1) in [0, 1], one-hot, void for unmatched slots; ReClass increases the
            targets of the other classes, so that a row may sum to more than 1.
        class_weights: (B, N) >= 1e-5: the Dice of a matched slot, the void ratio of an unmatched slot (the
            fraction of its mask that lies on void pixels).
        mask_weights: (B, N): the class probability of a matched slot (>= 1e-5), 0 for an unmatched slot.
        sem_seg: (B, h, w) int64 in [0, K), K for void pixels.
        inverse_area: (B, h, w) > 0, pixels of the map divided by the area of the pixel's slot, or by 1 where
            ``owner`` is N.
    """
    owner: Tensor
    area: Tensor
    class_targets: Tensor
    class_weights: Tensor
    mask_weights: Tensor
    sem_seg: Tensor
    inverse_area: Tensor

    @property
    def void(self) -> Tensor:
        """(B, h, w) bool, pixels of no slot."""
        return self.owner == self.area.shape[1]
