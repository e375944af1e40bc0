"""Mask-ID losses: per-pixel classification of the mask slot that a pixel belongs to."""
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from remax_mm.structures import MaskPrediction, SlotTargets
from .pixel_sampling import mean_over_nonzero

SLOT_REDUCTIONS = ('sum', 'mean', 'matched')


@MODELS.register_module()
class SoftmaxMaskIDLoss(nn.Module):
    """Softmax cross entropy over the slots of each pixel; void pixels are ignored (MaX-DeepLab, Sec. 3.3).

    Args:
        loss_weight: factor on the mean over the pixels that are not void.
    """

    def __init__(self, loss_weight: float = 0.3) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, prediction: MaskPrediction, targets: SlotTargets) -> Tensor:
        """Scalar from supervised mask logits (B, N, h, w)."""
        logits = prediction.supervised_mask_logits
        loss = F.cross_entropy(logits, targets.masks, reduction='none')  # (B, h, w)
        return self.loss_weight * mean_over_nonzero(loss.masked_fill(targets.void, 0).flatten(1))


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

    def __init__(self, loss_weight: float = 0.3, slot_reduction: str = 'sum') -> None:
        super().__init__()
        if slot_reduction not in SLOT_REDUCTIONS:
            raise ValueError(f'Expected `slot_reduction` to be one of {SLOT_REDUCTIONS}, but got '
                             f'{slot_reduction!r}')
        self.loss_weight = loss_weight
        self.slot_reduction = slot_reduction

    def forward(self, prediction: MaskPrediction, targets: SlotTargets) -> Tensor:
        """Scalar from supervised mask logits (B, N, h, w)."""
        loss = F.binary_cross_entropy_with_logits(
            prediction.supervised_mask_logits, targets.masks, reduction='none')  # (B, N, h, w)
        if self.slot_reduction == 'matched':
            loss = loss * (targets.mask_weights > 0)[:, :, None, None]
        loss = loss.mean(dim=1) if self.slot_reduction == 'mean' else loss.sum(dim=1)  # (B, h, w)

        # Mean over the pixels of each image that are not void, 0 if there are none, then over the images
        num_pixels = (~targets.void).flatten(1).sum(dim=1).clamp(min=1)
        per_image = loss.masked_fill(targets.void, 0).flatten(1).sum(dim=1) / num_pixels
        return self.loss_weight * per_image.mean()
