"""Input of ReMask besides the prediction."""
from typing import NamedTuple, Optional

from torch import Tensor


class StageContext(NamedTuple):
    """Features and ground truth of a decoder stage that ReMask may use.

    Attributes:
        pixel_space: (B, C, h, w), the feature that the stage's slots are compared with.
        pixel_decoder: (B, C', h, w), the pixel decoder's feature that ``pixel_space`` was computed from.
        sem_seg: (B, h', w') int64 in [0, K], K for void, the semantic ground truth; training only. Its size
            is ``h' = (h - 1) * s + 1`` for some stride s, likewise w'.
    """
    pixel_space: Tensor
    pixel_decoder: Optional[Tensor] = None
    sem_seg: Optional[Tensor] = None
