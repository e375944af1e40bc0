"""Change of resolution: features and logits are interpolated, ground truth is only strided."""
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


def find_stride(full_size: Sequence[int], size: Sequence[int]) -> int:
    """Find the stride s with which a ground-truth map ``[::s, ::s]`` is aligned with a prediction.

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
