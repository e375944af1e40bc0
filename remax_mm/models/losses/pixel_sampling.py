"""Pixel sampling that favors small segments, and the mean of MaX-DeepLab's losses."""
from typing import Optional

import torch
from torch import Tensor

from remax_mm.structures import SlotTargets

VOID_LOGIT = -99999.0
"""Added to the sampling logits of void pixels, so that all other pixels are drawn first."""


def sample_pixels(inverse_area: Tensor, void: Tensor, num_samples: int, temperature: float) -> Tensor:
    """Draw pixels without replacement by the Gumbel top-k trick, more often from small segments.

    The odds of a pixel are proportional to (map area / segment area) ** temperature. Follows deeplab2,
    model/loss/max_deeplab_loss.py.

    Args:
        inverse_area: (B, h, w) > 0, map area / segment area.
        void: (B, h, w) bool.
        num_samples: at most h * w.
        temperature: 0 draws uniformly from all pixels that are not void, 1 uniformly from all segments.

    Returns:
        (B, num_samples) int64, indices into the h * w pixels.
    """
    logits = temperature * inverse_area.log() + VOID_LOGIT * void.to(inverse_area)
    gumbel_noise = -torch.empty_like(logits).exponential_().log()
    return (logits + gumbel_noise).flatten(1).topk(num_samples, dim=1).indices


class PixelSampler:
    """Draw a fixed number of pixels per image, or use all pixels in their order.

    Args:
        num_samples: pixels per image; all pixels are used if it is 0 or not less than their number.
        temperature: see :func:`sample_pixels`.

    Raises:
        ValueError: negative ``num_samples``.
    """

    def __init__(self, num_samples: int, temperature: float) -> None:
        if num_samples < 0:
            raise ValueError(f'Expected `num_samples` to be 0 (all pixels) or more, but got {num_samples}')
        self.num_samples = num_samples
        self.temperature = temperature

    def __call__(self, targets: SlotTargets) -> Optional[Tensor]:
        """Indices (B, num_samples) into the pixels of ``targets``; None for all pixels."""
        if self.num_samples == 0 or self.num_samples >= targets.void[0].numel():
            return None
        return sample_pixels(targets.inverse_area, targets.void, self.num_samples, self.temperature)


def gather_pixels(values: Tensor, indices: Optional[Tensor]) -> Tensor:
    """Values of sampled pixels.

    Args:
        values: (B, h, w) or (B, C, h, w).
        indices: (B, S) into the h * w pixels; None for all pixels.

    Returns:
        (B, S) or (B, C, S).
    """
    values = values.flatten(-2)
    if indices is None:
        return values
    if values.dim() == 3:
        indices = indices.unsqueeze(1).expand(-1, values.shape[1], -1)
    return values.gather(-1, indices)


def mean_over_nonzero(loss: Tensor) -> Tensor:
    """Mean of the non-zero losses of each image, then over the images: (B, X) to a scalar.

    An image without a non-zero loss gives 0. deeplab2 (model/loss/base_loss.py) recognizes void pixels and
    zero weights by a loss of 0; a pixel whose loss is 0 in floating point is left out as well.
    """
    count = (loss != 0).sum(dim=1).clamp(min=1)
    return (loss.sum(dim=1) / count).mean()
