"""Binary cross entropy over exclusive classes or slots, without the dense targets."""
from typing import Any, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def sum_binary_cross_entropy(logits: Tensor, label: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the binary cross entropies of C logits, of which the label's has the target 1.

    Args:
        logits: (B, C, P) of P pixels.
        label: (B, P) int64 in [0, C). The target of the other logits is 0.
        weights: (B, C), factors on the terms of the sum; without gradient.

    Returns:
        (B, P).
    """
    return _SumBinaryCrossEntropy.apply(logits, label, weights)


class _SumBinaryCrossEntropy(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, weights: Tensor) -> Tensor:
        # softplus(z), but softplus(-z) for the label; softplus(z) - z would be a difference of large numbers.
        label, weights = label.unsqueeze(1), weights.unsqueeze(1)
        losses = F.softplus(logits).scatter_(1, label, F.softplus(-logits.gather(1, label)))
        ctx.save_for_backward(logits, label, weights)
        return torch.bmm(weights, losses).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, None, None]:
        logits, label, weights = ctx.saved_tensors
        probability = logits.sigmoid()
        difference = probability.scatter_(1, label, probability.gather(1, label) - 1)
        return difference.mul_(grad.unsqueeze(1)).mul_(weights.transpose(1, 2)), None, None
