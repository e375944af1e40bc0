"""Class loss of mmdet's heads for targets that are distributions, such as ReClass makes."""
from typing import Optional, Union

import torch.nn.functional as F
from mmdet.models.losses import CrossEntropyLoss, weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class SoftTargetCrossEntropyLoss(CrossEntropyLoss):
    r"""mmdet's softmax cross entropy, also against a distribution for each row.

    mmdet's mask transformer heads hand what ``_get_targets_single`` returns as ``label_weights`` to this
    loss, untouched. As (n,) they weight the rows, and the loss is mmdet's. As (n, C) they are the targets:

    .. math:: -\sum_c w_c \hat y_c \log p_c

    with w the class weights, so that one-hot targets give mmdet's loss again. Rows need not sum to 1.

    Args:
        class_weight: C weights, of all classes and void; None for 1.
        loss_weight: factor on the loss.
        use_sigmoid: taken because mmdet's configs set it; only False is known here.
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
            label: (n,) int64 in [0, C); not looked at where ``weight`` has the targets.
            weight: (n,) factors on the rows, or (n, C) targets >= 0.
            avg_factor: what the sum is divided by; None for n.
            reduction_override: in place of ``reduction``.
        """
        if weight is None or weight.ndim == 1:
            return super().forward(cls_score, label, weight, avg_factor, reduction_override)
        class_weight = None if self.class_weight is None else cls_score.new_tensor(self.class_weight)
        loss = F.cross_entropy(cls_score, weight, class_weight, reduction='none')
        reduction = reduction_override or self.reduction
        return self.loss_weight * weight_reduce_loss(loss, None, reduction, avg_factor)
