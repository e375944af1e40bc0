"""Mask-ID losses: per-pixel classification of the mask slot that a pixel belongs to."""
from typing import Any, Optional, Tuple

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from remax_mm.structures import MaskPrediction, SlotTargets
from .pixel_sampling import mean_over_nonzero
from .softmax_sums import SoftmaxSums, owning_slot, softmax_sums

SLOT_REDUCTIONS = ('sum', 'mean', 'matched')


@MODELS.register_module()
class SoftmaxMaskIDLoss(nn.Module):
    """Softmax cross entropy over the slots of each pixel; void pixels are ignored (MaX-DeepLab, Sec. 3.3).

    Args:
        loss_weight: factor on the mean over the pixels that are not void.
    """
    takes_softmax = True

    def __init__(self, loss_weight: float = 0.3) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self,
                prediction: MaskPrediction,
                targets: SlotTargets,
                softmax: Optional[SoftmaxSums] = None) -> Tensor:
        """Scalar from supervised mask logits (B, N, h, w), or from what is known of their softmax."""
        if softmax is None:
            softmax = softmax_sums(prediction.supervised_mask_logits, targets)
        return self.loss_weight * mean_over_nonzero(-softmax.log_owner.flatten(1))


@MODELS.register_module()
class SigmoidMaskIDLoss(nn.Module):
    """Binary cross entropy of each slot and pixel; void pixels are ignored (ReMaX, Table 2).

    The paper gives no formula. The sum over all slots agrees with its Fig. 1: with 128 slots and logits near
    0, the weight of false positives is 127 times the weight of false negatives.

    Args:
        loss_weight: factor on the mean over the pixels that are not void.
        slot_reduction: ``'sum'`` over the N slots, their ``'mean'``, or the sum over the ``'matched'`` slots
            only.

    Raises:
        ValueError: unknown reduction.
    """
    takes_softmax = False

    def __init__(self, loss_weight: float = 0.3, slot_reduction: str = 'sum') -> None:
        super().__init__()
        if slot_reduction not in SLOT_REDUCTIONS:
            raise ValueError(f'Expected `slot_reduction` to be one of {SLOT_REDUCTIONS}, but got '
                             f'{slot_reduction!r}')
        self.loss_weight = loss_weight
        self.slot_reduction = slot_reduction

    def forward(self, prediction: MaskPrediction, targets: SlotTargets) -> Tensor:
        """Scalar from supervised mask logits (B, N, h, w)."""
        weights = torch.ones_like(targets.mask_weights)
        if self.slot_reduction == 'matched':
            weights = (targets.mask_weights > 0).to(weights)
        elif self.slot_reduction == 'mean':
            weights /= weights.shape[1]
        loss = sum_binary_cross_entropy(prediction.supervised_mask_logits, owning_slot(targets), weights)

        # Mean over the pixels of each image that are not void, 0 if there are none, then over the images
        num_pixels = (~targets.void).flatten(1).sum(dim=1).clamp(min=1)
        per_image = loss.masked_fill(targets.void, 0).flatten(1).sum(dim=1) / num_pixels
        return self.loss_weight * per_image.mean()


def sum_binary_cross_entropy(mask_logits: Tensor, owner: Tensor, weights: Tensor) -> Tensor:
    """Binary cross entropy of all slots at each pixel, whose target is 1 for the owner and 0 for the others.

    Args:
        mask_logits: (B, N, h, w).
        owner: (B, h, w) int64 in [0, N).
        weights: (B, N), factors on the slots in the sum; without gradient.

    Returns:
        (B, h, w).
    """
    return _SumBinaryCrossEntropy.apply(mask_logits.flatten(2), owner.flatten(1), weights).view_as(owner)


class _SumBinaryCrossEntropy(torch.autograd.Function):
    """For logits (B, N, P), owners (B, P) and weights (B, N)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, owner: Tensor, weights: Tensor) -> Tensor:
        # softplus(z), but softplus(-z) for the owner; softplus(z) - z would be a difference of large numbers.
        owner, weights = owner.unsqueeze(1), weights.unsqueeze(1)
        losses = F.softplus(logits).scatter_(1, owner, F.softplus(-logits.gather(1, owner)))
        ctx.save_for_backward(logits, owner, weights)
        return torch.bmm(weights, losses).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, None, None]:
        logits, owner, weights = ctx.saved_tensors
        probability = logits.sigmoid()
        difference = probability.scatter_(1, owner, probability.gather(1, owner) - 1)
        return difference.mul_(grad.unsqueeze(1)).mul_(weights.transpose(1, 2)), None, None
