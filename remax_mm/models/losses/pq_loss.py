"""PQ-style loss of MaX-DeepLab (Sec. 3.2): a class term weighted by the mask, a mask term by the class."""
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from remax_mm.structures import MaskPrediction, SlotTargets
from .pixel_sampling import mean_over_nonzero

MASK_ACTIVATIONS = ('softmax', 'sigmoid')


def soft_cross_entropy(logits: Tensor, targets: Tensor, tf_gradient: bool = False) -> Tensor:
    r"""Cross entropy with targets :math:`y` that need not sum to one.

    .. math:: \sum_c y_c \, (\log\sum_k e^{z_k} - z_c)

    Its gradient is :math:`(\sum_c y_c)\,p - y`. TensorFlow's fused operation has the same value, but returns
    :math:`p - y`, which differs where :math:`\sum_c y_c \neq 1`.

    Args:
        logits: (..., C).
        targets: (..., C), >= 0.
        tf_gradient: take TensorFlow's gradient.

    Returns:
        (...).
    """
    if not tf_gradient:
        return -(targets * logits.log_softmax(dim=-1)).sum(-1)
    log_partition = logits.logsumexp(dim=-1)
    constant = (targets.sum(-1) - 1) * log_partition.detach()
    return log_partition + constant - (targets * logits).sum(-1)


def dice_loss(masks: Tensor,
              targets: Tensor,
              void: Tensor,
              mask_void: bool = True,
              smooth: float = 1.0) -> Tensor:
    r"""One minus the Dice of each slot with its own target.

    .. math:: 1 - \frac{2 \sum_x p_x g_x + s}{\sum_x p_x + \sum_x g_x + s}

    Args:
        masks: (B, N, h, w) probabilities p.
        targets: (B, N, h, w) in [0, 1], zero on void pixels.
        void: (B, h, w) bool.
        mask_void: leave void pixels out of the slots' areas.
        smooth: s.

    Returns:
        (B, N) in [0, 1).
    """
    masks, targets = masks.flatten(2), targets.flatten(2)
    counted = (~void).flatten(1).to(masks) if mask_void else torch.ones_like(masks[:, 0])
    area = torch.einsum('bnp,bp->bn', masks, counted)
    intersection = torch.einsum('bnp,bnp->bn', masks, targets)
    return 1 - (2 * intersection + smooth) / (area + targets.sum(-1) + smooth)


@MODELS.register_module()
class PQClassLoss(nn.Module):
    """Class term: cross entropy of every slot, times its Dice if matched, else its share of void pixels.

    Args:
        alpha: weight of slots with a segment; those without weigh ``1 - alpha``.
        loss_weight: factor on the whole.
        tf_gradient: gradient of the cross entropy as in TensorFlow, see :func:`soft_cross_entropy`. It
            matters only to ReClass, whose targets sum to more than one.
    """

    def __init__(self, alpha: float = 0.75, loss_weight: float = 3.0, tf_gradient: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.loss_weight = loss_weight
        self.tf_gradient = tf_gradient

    def forward(self, prediction: MaskPrediction, targets: SlotTargets) -> Tensor:
        """Scalar from class logits (B, N, K + 1)."""
        loss = soft_cross_entropy(prediction.class_logits, targets.class_targets, self.tf_gradient)  # (B, N)
        is_void = targets.class_targets[..., -1]
        balance = self.alpha * (1 - is_void) + (1 - self.alpha) * is_void
        return self.loss_weight * mean_over_nonzero(balance * targets.class_weights * loss)


@MODELS.register_module()
class PQMaskLoss(nn.Module):
    """Mask term: Dice loss of the matched slots, times the probability of the right class.

    The sum over matched slots is divided by N, as in deeplab2, so images with more segments weigh more.

    Args:
        activation: ``'softmax'`` over the slots or ``'sigmoid'`` of each.
        alpha: share of the mask term that falls to matched slots; nothing is asked of the others.
        loss_weight: factor on the whole.
        mask_void: leave void pixels out of the slots' areas.

    Raises:
        ValueError: unknown activation.
    """

    def __init__(self,
                 activation: str = 'softmax',
                 alpha: float = 0.75,
                 loss_weight: float = 3.0,
                 mask_void: bool = True) -> None:
        super().__init__()
        if activation not in MASK_ACTIVATIONS:
            raise ValueError(f'Expected `activation` to be one of {MASK_ACTIVATIONS}, but got {activation!r}')
        self.activation = activation
        self.alpha = alpha
        self.loss_weight = loss_weight
        self.mask_void = mask_void

    def forward(self, prediction: MaskPrediction, targets: SlotTargets) -> Tensor:
        """Scalar from supervised mask logits (B, N, h, w)."""
        logits = prediction.supervised_mask_logits
        masks = logits.softmax(dim=1) if self.activation == 'softmax' else logits.sigmoid()
        loss = dice_loss(masks, targets.masks, targets.void, self.mask_void)  # (B, N)
        sum_over_slots = (targets.mask_weights * loss).sum(dim=1).mean()
        return self.loss_weight * self.alpha / logits.shape[1] * sum_over_slots
