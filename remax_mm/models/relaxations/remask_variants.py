"""Variants of ReMask that the ablations of ReMaX compare with (arXiv 2306.17319, Tables 5 and 7)."""
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from remax_mm.structures import MaskPrediction, StageContext, full_precision
from ..layers import find_stride
from .remask import ACTIVATIONS, ReMask, _amplify, _check_choice, _gate


def ground_truth_gate(sem_seg: Tensor, class_logits: Tensor, activation: str = 'sigmoid') -> Tensor:
    """Eq. 1 of ReMaX with the true class of each pixel instead of semantic logits (Table 7, row 2).

    Args:
        sem_seg: (B, h, w) int64 in [0, K], K for void, where the gate is 0.
        class_logits: (B, N, K + 1), void last.
        activation: of the class logits, see :func:`semantic_gate`.

    Returns:
        (B, N, h, w) in [0, 1], at least float32.
    """
    class_logits = full_precision(class_logits)
    is_class = F.one_hot(sem_seg, class_logits.shape[-1])[..., :-1]  # (B, h, w, K)
    return _gate(is_class.permute(0, 3, 1, 2).to(class_logits), class_logits, activation)


@MODELS.register_module()
class ReMaskAtTest(ReMask):
    """ReMask that also runs at test, with its semantic head (Table 5 of ReMaX); loads the weights of ReMask.

    The relaxed masks assign pixels to slots as in training. The final output is never relaxed.
    """
    training_only = False


@MODELS.register_module()
class GroundTruthReMask(nn.Module):
    """ReMask with the true class of each pixel, without semantic head (Table 7 of ReMaX); identity in eval.

    In the paper PQ falls from 52.4 to 45.1, so a perfect filter is not what helps.

    Args:
        activation, identity, detach_class: see :func:`relax_mask_logits`. Without the identity the mask
            logits are 0 outside the true area of the slot's classes.

    Raises:
        ValueError: unknown activation.
    """
    training_only = True

    def __init__(self, activation: str = 'sigmoid', identity: bool = True, detach_class: bool = True) -> None:
        super().__init__()
        _check_choice('activation', activation, ACTIVATIONS)
        self.activation = activation
        self.identity = identity
        self.detach_class = detach_class

    def forward(self, prediction: MaskPrediction, context: StageContext) -> MaskPrediction:
        """
        Args:
            prediction: of a decoder stage at its native resolution.
            context: of the same stage.

        Raises:
            ValueError: ``context.sem_seg`` is missing in training, or does not fit the masks.
        """
        if not self.training:
            return prediction
        if context.sem_seg is None:
            raise ValueError('Expected the semantic ground truth in training with GroundTruthReMask, but the '
                             'decoder got none; `KMaXHead.loss` passes it')
        mask_logits, class_logits = prediction.mask_logits, prediction.class_logits
        stride = find_stride(context.sem_seg.shape[-2:], mask_logits.shape[-2:])
        with torch.autocast(mask_logits.device.type, enabled=False):
            gate = ground_truth_gate(context.sem_seg[:, ::stride, ::stride],
                                     class_logits.detach() if self.detach_class else class_logits,
                                     self.activation)
            return prediction._replace(relaxed_mask_logits=_amplify(mask_logits, gate, self.identity))
