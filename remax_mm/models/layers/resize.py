"""How features and ground truth change their resolution: features are interpolated, ground truth never is."""
from typing import Sequence

import torch.nn.functional as F
from torch import Tensor


def resize_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize with aligned corners, as all features and logits of sizes 32k + 1 are resized.

    Args:
        x: (B, C, h, w).
        size: wanted (height, width).
    """
    target_size = (int(size[0]), int(size[1]))
    if tuple(x.shape[-2:]) == target_size:
        return x
    return F.interpolate(x, size=target_size, mode='bilinear', align_corners=True)


def find_stride(full_size: Sequence[int], size: Sequence[int]) -> int:
    """Stride s with which a ground-truth map ``[::s, ::s]`` is aligned with a prediction at its corners.

    Args:
        full_size: (height, width) of the ground truth.
        size: (height, width) of the prediction.

    Returns:
        s >= 1 with full size = (size - 1) * s + 1 on both axes.

    Raises:
        ValueError: there is no such stride.
    """
    stride = max((full_size[0] - 1) // max(size[0] - 1, 1), 1)
    if any(full != (side - 1) * stride + 1 for full, side in zip(full_size, size)):
        raise ValueError(
            'Expected the size of the ground truth to be (size of the prediction - 1) * stride + 1 '
            f'on both axes, but got ground truth of {tuple(full_size)} and a prediction of '
            f'{tuple(size)} (height, width)')
    return stride
