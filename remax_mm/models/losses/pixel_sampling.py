"""Pixel sampling that favors small segments, and the mean of MaX-DeepLab's losses."""
from typing import Optional, Sequence, Tuple

import torch
from torch import Tensor

from remax_mm.structures import SlotTargets
from ..layers import resize_to

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
        if self.num_samples == 0 or self.num_samples >= targets.owner[0].numel():
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


def gather_resized(features: Tensor, size: Sequence[int], indices: Optional[Tensor]) -> Tensor:
    """Values of sampled pixels of resized features; the other pixels are not computed.

    Args:
        features: (B, C, h, w).
        size: (height, width) to resize to, see :func:`.resize_to`.
        indices: (B, S) into its height * width pixels; None for all pixels.

    Returns:
        (B, S, C).
    """
    height, width = features.shape[-2:]
    if indices is None or (height, width) == tuple(size):
        return gather_pixels(resize_to(features, size), indices).transpose(1, 2)
    rows = _neighbors(torch.div(indices, size[1], rounding_mode='floor'), height, size[0], features.dtype)
    columns = _neighbors(indices % size[1], width, size[1], features.dtype)

    # Bilinear interpolation: the weighted sum of four rows of a table (B * h * w, C)
    table = features.permute(0, 2, 3, 1).flatten(0, 2)
    first = height * width * torch.arange(len(features), device=indices.device).unsqueeze(1)
    values = features.new_zeros(())
    for row, row_weight in rows:
        for column, column_weight in columns:
            neighbor = table.index_select(0, (first + row * width + column).flatten())
            weight = (row_weight * column_weight).unsqueeze(-1)
            values = values + neighbor.view(*indices.shape, -1) * weight
    return values


def _neighbors(index: Tensor, side: int, full_side: int,
               dtype: torch.dtype) -> Tuple[Tuple[Tensor, Tensor], Tuple[Tensor, Tensor]]:
    """Both neighbors, and their weights, on an axis of ``side`` pixels that is resized to ``full_side``."""
    position = index.to(dtype) * ((side - 1) / max(full_side - 1, 1))
    lower = position.long()
    weight = position - lower
    return (lower, 1 - weight), ((lower + 1).clamp(max=side - 1), weight)


def mean_over_nonzero(loss: Tensor) -> Tensor:
    """Mean of the non-zero losses of each image, then over the images: (B, X) to a scalar.

    An image without a non-zero loss gives 0. deeplab2 (model/loss/base_loss.py) recognizes void pixels and
    zero weights by a loss of 0; a pixel whose loss is 0 in floating point is left out as well.
    """
    count = (loss != 0).sum(dim=1).clamp(min=1)
    return (loss.sum(dim=1) / count).mean()
