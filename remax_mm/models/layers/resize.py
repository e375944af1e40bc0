"""Bilinear resizing of features and logits."""
from typing import Sequence

import torch.nn.functional as F
from torch import Tensor


def resize_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize bilinearly with aligned corners, as features of images with 32k + 1 pixels require.

    Args:
        x: (B, C, h, w).
        size: height and width of the output.

    Returns:
        (B, C, *size); ``x`` itself if it has this size.
    """
    size = (int(size[0]), int(size[1]))
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode='bilinear', align_corners=True)
