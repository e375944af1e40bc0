"""Output of MaX-DeepLab's backbone."""
from typing import NamedTuple, Tuple

from torch import Tensor


class DualPathFeatures(NamedTuple):
    """Input of MaX-DeepLab's head. An activation was applied to all of it.

    Attributes:
        panoptic: (B, C, h, w) at stride 4, the feature that the masks are computed from.
        semantic: input of the auxiliary semantic head: the features of the stages at strides 4, 8 and 16,
            then its main feature, at stride 16, or at stride 4 if the backbone has a decoder.
        class_embedding: (B, C', N), slot embeddings that the classes are computed from.
        mask_embedding: (B, C', N), slot embeddings that the masks are computed from.
    """
    panoptic: Tensor
    semantic: Tuple[Tensor, ...]
    class_embedding: Tensor
    mask_embedding: Tensor
