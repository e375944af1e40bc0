"""Mask-ID losses: per-pixel classification of the mask slot that a pixel belongs to."""
from typing import Optional

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from remax_mm.structures import MaskPrediction, SlotTargets
from .binary_cross_entropy import sum_binary_cross_entropy
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
        logits = prediction.supervised_mask_logits.flatten(2)
        loss = sum_binary_cross_entropy(logits, owning_slot(targets).flatten(1), weights)  # (B, h * w)

        # Mean over the pixels of each image that are not void, 0 if there are none, then over the images
        void = targets.void.flatten(1)
        per_image = loss.masked_fill(void, 0).sum(dim=1) / (~void).sum(dim=1).clamp(min=1)
        return self.loss_weight * per_image.mean()
