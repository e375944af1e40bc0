"""Result of matching mask slots with ground-truth segments."""
from typing import NamedTuple

from torch import Tensor


class Match(NamedTuple):
    """The P matched pairs of one image, ordered by segment. No part has a gradient.

    Attributes:
        slot: (P,) int64, indices into the N mask slots, each at most once.
        segment: (P,) int64, indices into the M segments, ascending, each at most once.
        mask_dice: (P,) Dice of each pair in [0, 1].
        class_similarity: (P,) probability of the segment's class, in [0, 1].
        void_ratio: (N,) in [0, 1], the fraction of each slot's mask that lies on void pixels or on segments
            without a slot.
    """
    slot: Tensor
    segment: Tensor
    mask_dice: Tensor
    class_similarity: Tensor
    void_ratio: Tensor
