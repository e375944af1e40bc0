"""The one way to resize features and logits."""
from typing import Tuple

import torch.nn.functional as F
from torch import Tensor


def resize_to(x: Tensor, size: Tuple[int, int]) -> Tensor:
    """Bilinear resize with aligned corners, as all features and logits of sizes 32k + 1 are resized.

    Args:
        x: (B, C, h, w).
        size: wanted (height, width).
    """
    size = (int(size[0]), int(size[1]))
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode='bilinear', align_corners=True)
