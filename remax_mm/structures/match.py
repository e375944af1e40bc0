from typing import NamedTuple

from torch import Tensor


class Match(NamedTuple):
    """Pairs of mask slots and ground-truth segments of one image, P of them, ordered by segment.

    Attributes:
        slot: (P,) int64, indices into the N mask slots, no index twice.
        segment: (P,) int64, indices into the M segments, ascending, no index twice.
        mask_dice: (P,) Dice of each pair in [0, 1], without gradient.
        class_similarity: (P,) probability of the segment's class, in [0, 1], without gradient.
    """
    slot: Tensor
    segment: Tensor
    mask_dice: Tensor
    class_similarity: Tensor
