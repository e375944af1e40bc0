"""Pixel-wise instance discrimination on the pixel feature (CMT-DeepLab, kMaX-DeepLab)."""
from typing import Any, Tuple

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from remax_mm.structures import MaskPrediction, SlotTargets
from .pixel_sampling import PixelSampler, gather_pixels, mean_over_nonzero


def pixel_contrast(features: Tensor, masks: Tensor, temperature: float) -> Tensor:
    r"""Cross entropy of each pixel's similarities to all pixels, with the pixels of its segment as targets.

    .. math:: \sum_j t_{ij} \Big(\log\sum_k e^{f_i f_k / \tau} - f_i f_j / \tau\Big), \quad
              t_{ij} = \frac{g_i g_j}{\max(1, \sum_k g_i g_k)}

    Args:
        features: (B, D, S) features f of S pixels, unit length.
        masks: (B, N, S) in [0, 1], the share g of each pixel that belongs to each slot; zero for void.
        temperature: tau.

    Returns:
        (B, S), 0 for void pixels, which are negatives for all other pixels.
    """
    # With one prototype per slot, the sum of g_j f_j over the pixels, the second term needs no S x S matrix.
    prototypes = torch.einsum('bns,bds->bnd', masks, features)
    attraction = torch.einsum('bnd,bds->bns', prototypes, features)
    attraction = torch.einsum('bns,bns->bs', masks, attraction) / temperature
    positives = torch.einsum('bns,bn->bs', masks, masks.sum(-1))
    normalizer = positives.clamp(min=1)

    log_partition = _RowLogSumExp.apply(features.transpose(1, 2).contiguous(), temperature)
    return (positives * log_partition - attraction) / normalizer


class _RowLogSumExp(torch.autograd.Function):
    """log sum_k exp(f_i f_k / tau) of each pixel i of features (B, S, D).

    Only one S x S matrix exists at a time, and none is kept for the backward pass: at 4096 pixels each takes
    64 MiB, and autograd would keep one per image and decoder output.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, temperature: float) -> Tensor:
        rows = torch.stack([(f @ f.T).div_(temperature).logsumexp(dim=1) for f in features])
        ctx.save_for_backward(features, rows)
        ctx.temperature = temperature
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor) -> Tuple[Tensor, None]:
        features, rows = ctx.saved_tensors
        grads = []
        for f, row, grad in zip(features, rows, grad_rows):
            softmax = (f @ f.T).div_(ctx.temperature).sub_(row[:, None]).exp_()
            grad_similarity = softmax.mul_(grad[:, None])  # (S, S)
            # The similarity of i and k depends on both features.
            grads.append(((grad_similarity + grad_similarity.T) @ f).div_(ctx.temperature))
        return torch.stack(grads), None


@MODELS.register_module()
class InstanceDiscriminationLoss(nn.Module):
    """:func:`pixel_contrast` of sampled pixels: the features of a segment's pixels should be similar.

    Args:
        num_samples: number of pixels sampled per image in each call; 0 uses all, as does an image with fewer.
        sampling_temperature: preference for small segments, see :func:`.sample_pixels`.
        temperature: tau of the softmax over pixels.
        loss_weight: factor on the mean over the sampled pixels that are not void.

    Raises:
        ValueError: negative ``num_samples``.
    """

    def __init__(self,
                 num_samples: int = 4096,
                 sampling_temperature: float = 1.5,
                 temperature: float = 0.3,
                 loss_weight: float = 1.0) -> None:
        super().__init__()
        self.sampler = PixelSampler(num_samples, sampling_temperature)
        self.temperature = temperature
        self.loss_weight = loss_weight

    def forward(self, prediction: MaskPrediction, targets: SlotTargets) -> Tensor:
        """Scalar from pixel features (B, D, h, w)."""
        pixels = self.sampler(targets)
        features = gather_pixels(prediction.pixel_feature, pixels)  # (B, D, S)
        masks = gather_pixels(targets.masks, pixels)  # (B, N, S)
        return self.loss_weight * mean_over_nonzero(pixel_contrast(features, masks, self.temperature))
