"""Residual blocks of MaX-DeepLab, of kMaX-DeepLab's pixel decoder and of its backbone MaX-S.

All activate their input first, take the shortcut from the activated input and return the sum without an
activation; whoever consumes it activates (deeplab2 model/layers/axial_blocks.py).
"""
from mmcv.cnn import build_activation_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from .axial_attention import AxialAttention2d
from .conv_norm_act import KMAX_ACT, KMAX_NORM, ActConfig, ConvNormAct, NormConfig

EXPANSION = 4
"""Output channels of a block over its base channels."""


def _shortcut(in_channels: int, out_channels: int, norm_cfg: NormConfig, stride: int) -> nn.Module:
    if in_channels != out_channels:
        return ConvNormAct(in_channels, out_channels, stride=stride, norm_cfg=norm_cfg, act=False)
    # Pooling over one pixel takes every stride-th.
    return nn.Identity() if stride == 1 else nn.MaxPool2d(1, stride)


class BottleneckBlock(nn.Module):
    """1x1 to f, 3x3, 1x1 to 4f channels, for ``base_channels`` f."""

    def __init__(self,
                 in_channels: int,
                 base_channels: int,
                 drop_path_rate: float = 0.0,
                 norm_cfg: NormConfig = KMAX_NORM,
                 stride: int = 1,
                 act_cfg: ActConfig = KMAX_ACT) -> None:
        super().__init__()
        out_channels = EXPANSION * base_channels
        cfgs = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.act = build_activation_layer(act_cfg)
        self.shortcut = _shortcut(in_channels, out_channels, norm_cfg, stride)
        self.reduce = ConvNormAct(in_channels, base_channels, **cfgs)
        self.spatial = ConvNormAct(base_channels, base_channels, 3, stride=stride, **cfgs)
        self.expand = ConvNormAct(base_channels, out_channels, norm_cfg=norm_cfg, act=False, norm_init=0.0)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, 4f, h', w'), h' = (h - 1) // stride + 1."""
        x = self.act(x)
        return self.shortcut(x) + self.drop_path(self.expand(self.spatial(self.reduce(x))))


class BasicBlock(nn.Module):
    """3x3 to 4f, 3x3 to 4f channels, for ``base_channels`` f: the block of wide residual networks."""

    def __init__(self,
                 in_channels: int,
                 base_channels: int,
                 drop_path_rate: float = 0.0,
                 norm_cfg: NormConfig = KMAX_NORM,
                 stride: int = 1,
                 act_cfg: ActConfig = KMAX_ACT) -> None:
        super().__init__()
        channels = EXPANSION * base_channels
        self.act = build_activation_layer(act_cfg)
        self.shortcut = _shortcut(in_channels, channels, norm_cfg, stride)
        self.first = ConvNormAct(in_channels, channels, 3, stride=stride, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.second = ConvNormAct(channels, channels, 3, norm_cfg=norm_cfg, act=False, norm_init=0.0)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, 4f, h', w'), h' = (h - 1) // stride + 1."""
        x = self.act(x)
        return self.shortcut(x) + self.drop_path(self.second(self.first(x)))


class AxialBlock(nn.Module):
    """1x1 to ef, axial attention with ef / 2 key and ef value channels, 1x1 to 4f, for ``base_channels`` f.

    Args:
        attention_expansion: e, 2 but in MaX-DeepLab-L, which has 4.
    """

    def __init__(self,
                 in_channels: int,
                 base_channels: int,
                 drop_path_rate: float = 0.0,
                 norm_cfg: NormConfig = KMAX_NORM,
                 num_heads: int = 8,
                 stride: int = 1,
                 act_cfg: ActConfig = KMAX_ACT,
                 attention_expansion: int = 2) -> None:
        super().__init__()
        channels, out_channels = attention_expansion * base_channels, EXPANSION * base_channels
        self.act = build_activation_layer(act_cfg)
        self.shortcut = _shortcut(in_channels, out_channels, norm_cfg, stride)
        self.reduce = ConvNormAct(in_channels, channels, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.attention = AxialAttention2d(channels, channels // 2, channels, num_heads, norm_cfg, stride)
        self.expand = ConvNormAct(channels, out_channels, norm_cfg=norm_cfg, act=False, norm_init=0.0)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, 4f, h', w'), h' = (h - 1) // stride + 1."""
        x = self.act(x)
        return self.shortcut(x) + self.drop_path(self.expand(self.act(self.attention(self.reduce(x)))))


BLOCK_TYPES = dict(axial=AxialBlock, bottleneck=BottleneckBlock)


def build_block_group(block_type: str,
                      num_blocks: int,
                      in_channels: int,
                      base_channels: int,
                      drop_path_rate: float = 0.0,
                      norm_cfg: NormConfig = KMAX_NORM) -> nn.Sequential:
    """``num_blocks`` blocks of one type in a row, at one resolution.

    Raises:
        ValueError: unknown block type.
    """
    if block_type not in BLOCK_TYPES:
        raise ValueError(f'Expected a block type among {sorted(BLOCK_TYPES)}, but got {block_type!r}.')
    block = BLOCK_TYPES[block_type]
    widths = [in_channels] + [EXPANSION * base_channels] * (num_blocks - 1)
    return nn.Sequential(*(block(width, base_channels, drop_path_rate, norm_cfg)
                           for width in widths[:num_blocks]))
