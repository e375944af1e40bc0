"""Arithmetic of batch norms that are folded into layers."""
from typing import Any, Optional, Tuple

import torch
from torch import Tensor, nn

Layer = Any
"""``nn.Conv1d``, ``nn.Conv2d``, ``nn.Conv3d`` or ``nn.Linear``."""

Norm = Any
"""A batch norm with running statistics."""


def scale_and_shift(norm: Norm) -> Tuple[Tensor, Tensor]:
    """What a batch norm computes in evaluation mode: ``scale * x + shift`` for each channel.

    Returns:
        Two float64 tensors (C, ).
    """
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        weight = norm.weight.double()
        scale, shift = scale * weight, shift * weight + norm.bias.double()
    return scale, shift


def change_outputs(layer: Layer, scale: Tensor, shift: Optional[Tensor] = None, start: int = 0) -> None:
    """Change a layer so that output channel ``start + i`` becomes ``scale[i] * y + shift[i]``.

    Args:
        scale, shift: (C, ) float64; without ``shift`` it is 0.
        start: the first channel that changes.
    """
    stop = start + len(scale)
    weight, bias = layer.weight.to(torch.float64, copy=True), _bias(layer)
    weight[start:stop] *= scale.view(-1, *[1] * (weight.ndim - 1))
    bias[start:stop] *= scale
    if shift is not None:
        bias[start:stop] += shift
    _set_parameters(layer, weight, bias)


def change_inputs(layer: Layer, scale: Tensor, shift: Tensor) -> None:
    """Change a layer so that it computes with input x what it computed with ``scale * x + shift``.

    Args:
        layer: linear, or a convolution of 1x1 pixels without padding.
        scale, shift: (C, ) float64, for the input channels.
    """
    weight, groups = layer.weight.double(), getattr(layer, 'groups', 1)
    matrix = weight.view(groups, -1, weight.shape[1])  # (groups, outputs, inputs of the group)
    bias = _bias(layer) + (matrix @ shift.view(groups, -1, 1)).flatten()
    _set_parameters(layer, (matrix * scale.view(groups, 1, -1)).view_as(weight), bias)


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace a module under all its names."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)


def _bias(layer: Layer) -> Tensor:
    if layer.bias is None:
        return torch.zeros(len(layer.weight), dtype=torch.float64, device=layer.weight.device)
    return layer.bias.to(torch.float64, copy=True)


def _set_parameters(layer: Layer, weight: Tensor, bias: Tensor) -> None:
    """Give a layer new parameters; others may share the old ones."""
    old = layer.weight
    layer.weight = nn.Parameter(weight.to(old.dtype), requires_grad=old.requires_grad)
    layer.bias = nn.Parameter(bias.to(old.dtype), requires_grad=old.requires_grad)
