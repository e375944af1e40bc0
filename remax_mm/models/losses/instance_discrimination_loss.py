"""Pixel-wise instance discrimination on the pixel feature (CMT-DeepLab, kMaX-DeepLab)."""
from typing import Any, Iterator, Tuple

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from remax_mm.structures import MaskPrediction, SlotTargets
from ..layers import sum_by_owner
from .pixel_sampling import PixelSampler, gather_pixels, gather_resized, mean_over_nonzero

STRIP_ROWS = 256
"""Rows of the matrix of similarities that exist at a time: 4 MiB per image at 4096 pixels in float32."""
MIN_TEMPERATURE = 0.05
"""Below it, exp(-2 / temperature) gets near the smallest number of float32."""


def pixel_contrast(features: Tensor, owner: Tensor, num_slots: int, temperature: float) -> Tensor:
    r"""Cross entropy of each pixel's similarities to all pixels, with the pixels of its slot as targets.

    .. math:: \log\sum_k e^{f_i f_k / \tau} - \frac{1}{|S_i|}\sum_{j \in S_i} f_i f_j / \tau

    Args:
        features: (B, S, D) features f of S pixels, of unit length or shorter.
        owner: (B, S) int64, the slot in [0, N) that each pixel belongs to, N for void pixels.
        num_slots: N.
        temperature: tau.

    Returns:
        (B, S), 0 for void pixels, which are negatives for all other pixels.
    """
    # The second term needs no S x S matrix: it is the similarity to the mean feature of the slot.
    ones = features.new_ones(owner.shape)
    counts = features.new_zeros(len(owner), num_slots + 1).scatter_add_(1, owner, ones)
    sums = sum_by_owner(features.transpose(1, 2), owner, num_slots + 1)  # (B, D, N + 1)
    means = (sums / counts.clamp(min=1).unsqueeze(1)).transpose(1, 2)
    own_mean = means.gather(1, owner.unsqueeze(2).expand(-1, -1, means.shape[2]))  # (B, S, D)
    attraction = (features * own_mean).sum(dim=2) / temperature

    log_partition = _RowLogSumExp.apply(features, temperature)
    return (log_partition - attraction).masked_fill(owner == num_slots, 0)


class _RowLogSumExp(torch.autograd.Function):
    """log sum_k exp(f_i f_k / tau) of each pixel i of features (B, S, D) of at most unit length.

    No similarity exceeds 1 / tau, so this constant is subtracted from all of them before the exponential, and
    no maximum of each row. The matrix is symmetric: only one half is computed, in strips, and none is kept.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, temperature: float) -> Tensor:
        scaled = features * temperature**-0.5
        sums = scaled.new_zeros(scaled.shape[:2])
        for rows, later, strip in _exponential_strips(scaled, temperature):
            sums[:, rows] += strip.sum(dim=2)
            sums[:, later] += strip[:, :, STRIP_ROWS:].sum(dim=1)
        ctx.save_for_backward(scaled, sums)
        ctx.temperature = temperature
        return sums.log() + 1 / temperature

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor) -> Tuple[Tensor, None]:
        # The similarity of i and k depends on both features. Its gradient is E_ik (a_i + a_k), where E is the
        # symmetric matrix and a the gradient of a row divided by the row's sum.
        scaled, sums = ctx.saved_tensors
        factor = grad_rows / sums
        grad = torch.zeros_like(scaled)
        for rows, later, strip in _exponential_strips(scaled, ctx.temperature):
            strip.mul_(factor[:, rows, None] + factor[:, None, rows.start:])
            grad[:, rows].baddbmm_(strip, scaled[:, rows.start:])
            grad[:, later].baddbmm_(strip[:, :, STRIP_ROWS:].transpose(1, 2), scaled[:, rows])
        return grad * ctx.temperature**-0.5, None


def _exponential_strips(scaled: Tensor, temperature: float) -> Iterator[Tuple[slice, slice, Tensor]]:
    """Upper half of exp(f_i f_k / tau - 1 / tau), from features (B, S, D) that were scaled by tau ** -0.5.

    Yields:
        Some rows, all later rows, and the strip (B, R, C) of these R rows and all columns from the first of
        them on.
    """
    for start in range(0, scaled.shape[1], STRIP_ROWS):
        rows, later = slice(start, start + STRIP_ROWS), slice(start + STRIP_ROWS, None)
        similarity = torch.bmm(scaled[:, rows], scaled[:, start:].transpose(1, 2))
        yield rows, later, similarity.sub_(1 / temperature).exp_()


@MODELS.register_module()
class InstanceDiscriminationLoss(nn.Module):
    """:func:`pixel_contrast` of sampled pixels: the features of a segment's pixels should be similar.

    Args:
        num_samples: number of pixels sampled per image in each call; 0 uses all, as does an image with fewer.
        sampling_temperature: preference for small segments, see :func:`.sample_pixels`.
        temperature: tau of the softmax over pixels, at least 0.05.
        loss_weight: factor on the mean over the sampled pixels that are not void.

    Raises:
        ValueError: negative ``num_samples``, or a lower ``temperature``.
    """

    def __init__(self,
                 num_samples: int = 4096,
                 sampling_temperature: float = 1.5,
                 temperature: float = 0.3,
                 loss_weight: float = 1.0) -> None:
        super().__init__()
        if temperature < MIN_TEMPERATURE:
            raise ValueError(
                f'Expected `temperature` to be at least {MIN_TEMPERATURE}, but got {temperature}')
        self.sampler = PixelSampler(num_samples, sampling_temperature)
        self.temperature = temperature
        self.loss_weight = loss_weight

    def forward(self, prediction: MaskPrediction, targets: SlotTargets) -> Tensor:
        """Scalar from pixel features (B, D, h', w') at any resolution."""
        pixels = self.sampler(targets)
        features = gather_resized(prediction.pixel_feature, targets.owner.shape[-2:], pixels)  # (B, S, D)
        owner = gather_pixels(targets.owner, pixels)  # (B, S)
        loss = pixel_contrast(features, owner, targets.area.shape[1], self.temperature)
        return self.loss_weight * mean_over_nonzero(loss)
