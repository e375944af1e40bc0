from typing import NamedTuple, Optional

from torch import Tensor


class StageContext(NamedTuple):
    """What a decoder stage shows to ReMask beside its prediction.

    Attributes:
        pixel_space: (B, C, h, w), the feature that the stage's slots are compared with.
        pixel_decoder: (B, C', h, w), the pixel decoder's feature that ``pixel_space`` was made from.
        sem_seg: (B, h', w') int64 in [0, K], K for void, semantic ground truth at ``h' = (h - 1) * s + 1``
            for some stride s, likewise w'; training only.
    """
    pixel_space: Tensor
    pixel_decoder: Optional[Tensor] = None
    sem_seg: Optional[Tensor] = None
