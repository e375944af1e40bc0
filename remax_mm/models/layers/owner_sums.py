"""Sum of the values of the pixels that belong to each mask slot, segment or class."""
from typing import Any, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ONE_HOT_ELEMENTS = 2**22
"""Maximum size of the one-hot matrix that exists at a time, 16 MiB in float32."""


def sum_by_owner(values: Tensor, owner: Tensor, num_owners: int) -> Tensor:
    """Sum the values of each owner's pixels.

    It is a product with a one-hot matrix, built for some pixels at a time: unlike atomic additions, it is
    deterministic on a GPU. The backward pass reads each pixel's gradient from its owner.

    Args:
        values: (B, C, P) of P pixels.
        owner: (B, P) int64 in [0, num_owners).
        num_owners: number of sums.

    Returns:
        (B, C, num_owners), 0 for an owner without a pixel.
    """
    if torch.jit.is_tracing():  # for mmengine's count of operations, which cannot trace autograd functions
        return _sum_by_one_hot(values, owner, num_owners)
    return _SumByOwner.apply(values, owner, num_owners)


def _sum_by_one_hot(values: Tensor, owner: Tensor, num_owners: int) -> Tensor:
    sums = values.new_zeros(*values.shape[:2], num_owners)
    batch_size, _, num_pixels = values.shape
    # An export to ONNX does not know the batch size: one product for all pixels.
    is_known = not isinstance(batch_size, torch.SymInt)
    step = max(ONE_HOT_ELEMENTS // (batch_size * num_owners), 1) if is_known else num_pixels
    for part, index in zip(values.split(step, dim=2), owner.split(step, dim=1)):
        is_owner = part.new_zeros(*index.shape, num_owners).scatter_(2, index.unsqueeze(2), 1)
        sums = sums.baddbmm(part, is_owner)
    return sums


class _SumByOwner(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, values: Tensor, owner: Tensor, num_owners: int) -> Tensor:
        ctx.save_for_backward(owner)
        return _sum_by_one_hot(values, owner, num_owners)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sums: Tensor) -> Tuple[Tensor, None, None]:
        owner, = ctx.saved_tensors
        return grad_sums.gather(2, owner.unsqueeze(1).expand(-1, grad_sums.shape[1], -1)), None, None
