"""ReMask: semantics relax the panoptic masks, in training only (ReMaX, arXiv 2306.17319, Sec. 3.1)."""
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import Tensor, nn

from remax_mm.structures import MaskPrediction
from ..layers import full_precision

ACTIVATIONS = ('sigmoid', 'softmax')


def semantic_gate(sem_logits: Tensor, class_logits: Tensor, activation: str = 'sigmoid') -> Tensor:
    """How much each slot's classes are seen at each pixel: Eq. 1 of ReMaX.

    Args:
        sem_logits: (B, K, h, w).
        class_logits: (B, N, K + 1); the void column takes no part in the product.
        activation: ``'sigmoid'`` of the paper's text, entries in [0, K], or ``'softmax'`` over the classes
            (void included for the slots, then dropped), entries in [0, 1].

    Returns:
        (B, N, h, w), at least float32.
    """
    sem_logits, class_logits = full_precision(sem_logits), full_precision(class_logits)
    if activation == 'sigmoid':
        semantic, classes = sem_logits.sigmoid(), class_logits[..., :-1].sigmoid()
    else:
        semantic, classes = sem_logits.softmax(dim=1), class_logits.softmax(dim=-1)[..., :-1]
    return torch.einsum('bnk,bkhw->bnhw', classes, semantic)


def relax_mask_logits(mask_logits: Tensor,
                      class_logits: Tensor,
                      sem_logits: Tensor,
                      *,
                      activation: str = 'sigmoid',
                      identity: bool = True,
                      stop_gradient: bool = True,
                      detach_class: bool = True) -> Tensor:
    """Amplify mask logits where the semantic prediction agrees with the slot: Eq. 2 of ReMaX.

    Args:
        mask_logits: (B, N, h, w).
        class_logits: (B, N, K + 1), void last.
        sem_logits: (B, K, h, w).
        activation: see :func:`semantic_gate`.
        identity: keep the leading ``mask_logits`` of Eq. 2 (Table 5 of the paper leaves it out).
        stop_gradient: no gradient from the relaxed masks into ``sem_logits`` (Fig. 2; Table 7 lets it pass).
        detach_class: none into ``class_logits`` either. Their absolute level is not supervised, so the mask
            loss could otherwise inflate it.

    Returns:
        (B, N, h, w), at least float32.
    """
    # The factor starts near 1 + K / 4, far out of half precision's comfort.
    with torch.autocast(mask_logits.device.type, enabled=False):
        gate = semantic_gate(
            sem_logits.detach() if stop_gradient else sem_logits,
            class_logits.detach() if detach_class else class_logits, activation)
        return full_precision(mask_logits) * (gate + 1 if identity else gate)


@MODELS.register_module()
class ReMask(nn.Module):
    """Predict semantics from a decoder stage's pixel feature and relax the stage's masks; identity in eval.

    Args:
        semantic_head: config of a head (B, C, h, w) to (B, K, h, w); it exists in training only.
        activation, identity, stop_gradient, detach_class: see :func:`relax_mask_logits`.

    Raises:
        ValueError: unknown activation.
    """

    def __init__(self,
                 semantic_head: ConfigDict,
                 activation: str = 'sigmoid',
                 identity: bool = True,
                 stop_gradient: bool = True,
                 detach_class: bool = True) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError('Expected the activation of ReMask among '
                             f'{ACTIVATIONS}, but got {activation!r}.')
        self.semantic_head = MODELS.build(semantic_head)
        self.options = dict(
            activation=activation, identity=identity, stop_gradient=stop_gradient, detach_class=detach_class)

    def forward(self, prediction: MaskPrediction, pixel_feature: Tensor) -> MaskPrediction:
        """
        Args:
            prediction: of a decoder stage at its native resolution.
            pixel_feature: (B, C, h, w), the feature that the stage's slots are compared with.
        """
        if not self.training:
            return prediction
        sem_logits = self.semantic_head(pixel_feature)
        relaxed = relax_mask_logits(
            prediction.mask_logits, prediction.class_logits, sem_logits, **self.options)
        return prediction._replace(relaxed_mask_logits=relaxed, sem_logits=sem_logits)
