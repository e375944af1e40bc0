"""Layers for inference that compute the same as those of the models, in fewer passes over memory."""
from typing import Any

import torch
from torch import Tensor, nn

from remax_mm.models.layers import AxialBlock, BasicBlock, ConvNormAct

Block = Any
"""``AxialBlock``, ``BasicBlock`` or ``BottleneckBlock``."""


class InplaceGELU(nn.Module):
    """Exact GELU that overwrites its input. A new large tensor costs more time than the GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return torch.ops.aten.gelu_(x)


class InferenceBlock(nn.Module):
    """Residual block without a separate sum.

    The shortcut is one convolution with the last convolution of the branch, or it is added in place.

    Args:
        block: without norms and without drop path; not changed.
        overwrite: whether the activation may overwrite the input of the block.
    """

    def __init__(self, block: Block, overwrite: bool) -> None:
        super().__init__()
        self.act = InplaceGELU() if overwrite and isinstance(block.act, nn.GELU) else block.act
        if isinstance(block, BasicBlock):
            self.branch, last = nn.Sequential(block.first), block.second
        elif isinstance(block, AxialBlock):
            self.branch, last = nn.Sequential(block.reduce, block.attention, inplace(block.act)), block.expand
        else:
            self.branch, last = nn.Sequential(block.reduce, block.spatial), block.expand

        conv: Any = last.conv
        shortcut: Any = block.shortcut
        self.joined = isinstance(shortcut, ConvNormAct) and _is_pixelwise(conv) and _is_pixelwise(
            shortcut.conv)
        self.shortcut, self.last = nn.Identity() if self.joined else shortcut, conv
        if self.joined:
            self.last = nn.Conv2d(
                shortcut.conv.in_channels + conv.in_channels, conv.out_channels, 1, device='meta')
            parts = (shortcut.conv, conv)
            self.last.weight = nn.Parameter(torch.cat([part.weight for part in parts], dim=1), False)
            self.last.bias = nn.Parameter(shortcut.conv.bias + conv.bias, False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, h', w')."""
        x = self.act(x)
        if self.joined:
            return self.last(torch.cat([x, self.branch(x)], dim=1))
        return self.last(self.branch(x)).add_(self.shortcut(x))


def inplace(act: nn.Module) -> nn.Module:
    """The activation, overwriting its input where there is such a variant."""
    if isinstance(act, nn.GELU) and act.approximate == 'none':
        return InplaceGELU()
    return nn.ReLU(inplace=True) if isinstance(act, nn.ReLU) else act


def _is_pixelwise(conv: Any) -> bool:
    return conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.groups == 1 and conv.bias is not None
