"""What mask losses need of the softmax over the slots, computed once for all of them."""
from typing import Any, NamedTuple, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from remax_mm.structures import SlotTargets


class SoftmaxSums(NamedTuple):
    """Of the softmax over the slots at each pixel.

    Attributes:
        log_owner: (B, h, w) <= 0, log-probability of the slot that the pixel belongs to; 0 for void pixels.
        area: (B, N) >= 0, sum of each slot's probabilities over the pixels that are not void.
    """
    log_owner: Tensor
    area: Tensor


def softmax_sums(mask_logits: Tensor, targets: SlotTargets) -> SoftmaxSums:
    """Softmax over the slots, at the owner of each pixel and summed over the pixels.

    Args:
        mask_logits: (B, N, h, w).
        targets: at the resolution of the logits.
    """
    log_owner, area = _SoftmaxSums.apply(
        mask_logits.flatten(2),
        owning_slot(targets).flatten(1), ~targets.void.flatten(1))
    return SoftmaxSums(log_owner.view_as(targets.owner).masked_fill(targets.void, 0), area)


def owning_slot(targets: SlotTargets) -> Tensor:
    """The slot that each pixel belongs to, (B, h, w) in [0, N); any slot for void pixels."""
    return targets.owner.clamp(max=targets.area.shape[1] - 1)


class _SoftmaxSums(torch.autograd.Function):
    """For logits (B, N, P), owners (B, P) in [0, N) and valid pixels (B, P)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, owner: Tensor, valid: Tensor) -> Tuple[Tensor, Tensor]:
        owner, valid = owner.unsqueeze(1), valid.to(logits).unsqueeze(1)
        log_probability = logits.log_softmax(dim=1)
        log_owner = log_probability.gather(1, owner).squeeze(1)
        probability = log_probability.exp_()
        ctx.save_for_backward(probability, owner, valid)
        return log_owner, torch.bmm(probability, valid.transpose(1, 2)).squeeze(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_owner: Tensor, grad_area: Tensor) -> Tuple[Tensor, None, None]:
        # With p the probability, v = 1 at valid pixels, a and g the incoming gradients, and i the owner:
        # p_n (a_n v - sum_k p_k a_k v - g), and g besides for n = i
        probability, owner, valid = ctx.saved_tensors
        grad_owner, grad_area = grad_owner.unsqueeze(1), grad_area.unsqueeze(2)
        same_for_all_slots = torch.bmm(grad_area.transpose(1, 2), probability) * valid + grad_owner
        grad_logits = torch.baddbmm(same_for_all_slots, grad_area, valid, beta=-1).mul_(probability)
        return grad_logits.scatter_add_(1, owner, grad_owner), None, None
