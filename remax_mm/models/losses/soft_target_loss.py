"""Class loss for mmdet's heads that accepts soft targets, such as those of ReClass."""
from typing import Optional, Union

import torch.nn.functional as F
from mmdet.models.losses import CrossEntropyLoss, weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class SoftTargetCrossEntropyLoss(CrossEntropyLoss):
    r"""mmdet's softmax cross entropy, extended by soft targets.

    mmdet's mask transformer heads pass the ``label_weights`` of ``_get_targets_single`` to this loss
    unchanged. Weights (n,) are factors on the rows, and the loss is mmdet's. Weights (n, C) are the targets:

    .. math:: -\sum_c w_c \hat y_c \log p_c

    with the class weights w. One-hot targets give mmdet's loss. The sum of a row may differ from 1.

    Args:
        class_weight: C weights, one per class and one for void; None for 1.
        loss_weight: factor on the loss.
        use_sigmoid: accepted because mmdet's configs set it; only False is supported.
        reduction: ``'mean'``, ``'sum'`` or ``'none'``.

    Raises:
        ValueError: ``use_sigmoid`` is True.
    """

    def __init__(self,
                 class_weight: Optional[list] = None,
                 loss_weight: float = 1.0,
                 use_sigmoid: bool = False,
                 reduction: str = 'mean') -> None:
        if use_sigmoid:
            raise ValueError('Expected `use_sigmoid=False` in SoftTargetCrossEntropyLoss, but got True')
        super().__init__(reduction=reduction, class_weight=class_weight, loss_weight=loss_weight)

    def forward(self,
                cls_score: Tensor,
                label: Tensor,
                weight: Optional[Tensor] = None,
                avg_factor: Union[Tensor, float, None] = None,
                reduction_override: Optional[str] = None) -> Tensor:
        """
        Args:
            cls_score: (n, C).
            label: (n,) int64 in [0, C); unused if ``weight`` contains the targets.
            weight: (n,) factors on the rows, or (n, C) targets >= 0.
            avg_factor: divisor of the sum; None for n.
            reduction_override: replaces ``reduction``.
        """
        if weight is None or weight.ndim == 1:
            return super().forward(cls_score, label, weight, avg_factor, reduction_override)
        class_weight = None if self.class_weight is None else cls_score.new_tensor(self.class_weight)
        loss = F.cross_entropy(cls_score, weight, class_weight, reduction='none')
        reduction = reduction_override or self.reduction
        return self.loss_weight * weight_reduce_loss(loss, None, reduction, avg_factor)
