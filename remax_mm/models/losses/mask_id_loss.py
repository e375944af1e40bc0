"""Which slot does a pixel belong to: per-pixel cross entropy over the mask slots."""
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from remax_mm.structures import MaskPrediction, SlotTargets
from .pixel_sampling import mean_over_nonzero

SLOT_REDUCTIONS = ('sum', 'mean', 'matched')


@MODELS.register_module()
class SoftmaxMaskIDLoss(nn.Module):
    """Slots compete for each pixel (MaX-DeepLab, Sec. 3.3): softmax cross entropy, void pixels left out.

    Args:
        loss_weight: factor on the mean over non-void pixels.
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
    """Each slot decides for itself (ReMaX, Table 2): binary cross entropy, void pixels left out.

    The paper gives no formula. Summing over all slots is what its Fig. 1 shows: with 128 slots and logits
    near 0, false positives weigh 127 times as much as false negatives.

    Args:
        loss_weight: factor on the mean over non-void pixels.
        slot_reduction: ``'sum'`` over the N slots, their ``'mean'``, or the sum over ``'matched'``
            slots only.

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
        loss = loss.mean(dim=1) if self.slot_reduction == 'mean' else loss.sum(dim=1)
        return self.loss_weight * mean_over_pixels(loss, targets.void)


def mean_over_pixels(loss: Tensor, void: Tensor) -> Tensor:
    """Mean of (B, h, w) losses over the non-void pixels of each image (0 if none), then over images."""
    count = (~void).flatten(1).sum(dim=1).clamp(min=1)
    return (loss.masked_fill(void, 0).flatten(1).sum(dim=1) / count).mean()
