"""PQ-style loss of MaX-DeepLab (Sec. 3.2): a class term and a mask term, each weighted by the other."""
from typing import Optional, Tuple

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from remax_mm.structures import MaskPrediction, SlotTargets
from .pixel_sampling import mean_over_nonzero
from .softmax_sums import SoftmaxSums, owning_slot, softmax_sums

MASK_ACTIVATIONS = ('softmax', 'sigmoid')


def soft_cross_entropy(logits: Tensor, targets: Tensor, tf_gradient: bool = False) -> Tensor:
    r"""Cross entropy with targets :math:`y` whose sum may differ from 1.

    .. math:: \sum_c y_c \, (\log\sum_k e^{z_k} - z_c)

    Its gradient is :math:`(\sum_c y_c)\,p - y`. TensorFlow's fused operation has the same value, but its
    gradient is :math:`p - y`, which differs if :math:`\sum_c y_c \neq 1`.

    Args:
        logits: (..., C).
        targets: (..., C), >= 0.
        tf_gradient: whether to use TensorFlow's gradient.

    Returns:
        (...).
    """
    if not tf_gradient:
        return -(targets * logits.log_softmax(dim=-1)).sum(-1)
    log_partition = logits.logsumexp(dim=-1)
    constant = (targets.sum(-1) - 1) * log_partition.detach()
    return log_partition + constant - (targets * logits).sum(-1)


def dice_loss(intersection: Tensor, area: Tensor, target_area: Tensor) -> Tensor:
    r"""One minus the Dice of each slot with its own target; void pixels do not count.

    .. math:: 1 - \frac{2 \sum_x p_x g_x + 1}{\sum_x p_x + \sum_x g_x + 1}

    Args:
        intersection: (B, N), sum of the slot's probabilities p over the pixels of its target g.
        area: (B, N), sum of p over all pixels that are not void.
        target_area: (B, N), pixels of the target.

    Returns:
        (B, N) in [0, 1).
    """
    return 1 - (2 * intersection + 1) / (area + target_area + 1)


@MODELS.register_module()
class PQClassLoss(nn.Module):
    """Class term: cross entropy of every slot, times its Dice if it is matched, else times its void ratio.

    Args:
        alpha: weight of matched slots; the weight of the others is ``1 - alpha``.
        loss_weight: factor on the loss.
        tf_gradient: gradient of the cross entropy as in TensorFlow, see :func:`soft_cross_entropy`. It makes
            a difference with ReClass only, whose targets sum to more than 1.
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
    """Mask term: Dice loss of the matched slots, times the probability of the correct class.

    The sum over the matched slots is divided by N, as in deeplab2, so that images with more segments have
    more weight.

    Args:
        activation: ``'softmax'`` over the slots or ``'sigmoid'`` of each mask logit.
        alpha: weight of matched slots; the others have no mask loss.
        loss_weight: factor on the loss.

    Raises:
        ValueError: unknown activation.
    """

    def __init__(self, activation: str = 'softmax', alpha: float = 0.75, loss_weight: float = 3.0) -> None:
        super().__init__()
        if activation not in MASK_ACTIVATIONS:
            raise ValueError(f'Expected `activation` to be one of {MASK_ACTIVATIONS}, but got {activation!r}')
        self.activation = activation
        self.takes_softmax = activation == 'softmax'
        self.alpha = alpha
        self.loss_weight = loss_weight

    def forward(self,
                prediction: MaskPrediction,
                targets: SlotTargets,
                softmax: Optional[SoftmaxSums] = None) -> Tensor:
        """Scalar from supervised mask logits (B, N, h, w), or from what is known of their softmax."""
        logits = prediction.supervised_mask_logits
        if self.activation == 'sigmoid':
            at_owner, area = _sigmoid_sums(logits, targets)
        else:
            softmax = softmax_sums(logits, targets) if softmax is None else softmax
            at_owner, area = softmax.log_owner.exp(), softmax.area

        # Sum the probability of each pixel's own slot by slot; the last sum is that of the void pixels
        sums = area.new_zeros(len(area), area.shape[1] + 1)
        intersection = sums.scatter_add(1, targets.owner.flatten(1), at_owner.flatten(1))[:, :-1]
        loss = dice_loss(intersection, area, targets.area)  # (B, N)
        sum_over_slots = (targets.mask_weights * loss).sum(dim=1).mean()
        return self.loss_weight * self.alpha / logits.shape[1] * sum_over_slots


def _sigmoid_sums(mask_logits: Tensor, targets: SlotTargets) -> Tuple[Tensor, Tensor]:
    """Probability of each pixel's own slot (B, h, w), and area of each slot (B, N), void pixels left out."""
    masks = mask_logits.sigmoid()
    at_owner = masks.gather(1, owning_slot(targets).unsqueeze(1)).squeeze(1)
    return at_owner, torch.einsum('bnhw,bhw->bn', masks, (~targets.void).to(masks))
