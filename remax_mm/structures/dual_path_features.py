from typing import NamedTuple, Tuple

from torch import Tensor


class DualPathFeatures(NamedTuple):
    """What the backbone of MaX-DeepLab hands to its head; all of it is activated.

    Attributes:
        panoptic: (B, C, h, w) at stride 4, what masks are made on.
        semantic: for the auxiliary semantic head: the features of the stages at strides 4, 8 and 16, then its
            main one, at stride 16, or at 4 where the backbone has decoded it.
        class_embedding: (B, C', N), the memory for the classes of the slots.
        mask_embedding: (B, C', N), the memory for their masks.
    """
    panoptic: Tensor
    semantic: Tuple[Tensor, ...]
    class_embedding: Tensor
    mask_embedding: Tensor
