"""Residual blocks of MaX-DeepLab, and of the pixel decoder and the backbone MaX-S of kMaX-DeepLab.

All blocks activate their input, use the activated input as the shortcut and return the sum without
activation, like those of google-research/deeplab2, model/layers/axial_blocks.py.
"""
from mmcv.cnn import build_activation_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from .axial_attention import AxialAttention2d
from .conv_norm_act import KMAX_ACT, KMAX_NORM, ActConfig, ConvNormAct, NormConfig

EXPANSION = 4
"""Ratio of a block's output channels to its base channels."""


def _shortcut(in_channels: int, out_channels: int, norm_cfg: NormConfig, stride: int) -> nn.Module:
    if in_channels != out_channels:
        return ConvNormAct(in_channels, out_channels, stride=stride, norm_cfg=norm_cfg, act=False)
    # Pooling over single pixels only subsamples.
    return nn.Identity() if stride == 1 else nn.MaxPool2d(1, stride)


class BottleneckBlock(nn.Module):
    """Convolutions 1x1 to f, 3x3 to f, 1x1 to 4f channels, with f = ``base_channels``."""

    def __init__(self,
                 in_channels: int,
                 base_channels: int,
                 drop_path_rate: float = 0.0,
                 norm_cfg: NormConfig = KMAX_NORM,
                 stride: int = 1,
                 act_cfg: ActConfig = KMAX_ACT) -> None:
        super().__init__()
        out_channels = EXPANSION * base_channels
        cfgs: dict = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.act = build_activation_layer(act_cfg)
        self.shortcut = _shortcut(in_channels, out_channels, norm_cfg, stride)
        self.reduce = ConvNormAct(in_channels, base_channels, **cfgs)
        self.spatial = ConvNormAct(base_channels, base_channels, 3, stride=stride, **cfgs)
        self.expand = ConvNormAct(base_channels, out_channels, norm_cfg=norm_cfg, act=False, norm_init=0.0)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, 4f, h', w') with h' = (h - 1) // stride + 1."""
        x = self.act(x)
        return self.shortcut(x) + self.drop_path(self.expand(self.spatial(self.reduce(x))))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions to 4f channels, with f = ``base_channels``, as in wide residual networks."""

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
        """(B, in_channels, h, w) -> (B, 4f, h', w') with h' = (h - 1) // stride + 1."""
        x = self.act(x)
        return self.shortcut(x) + self.drop_path(self.second(self.first(x)))


class AxialBlock(nn.Module):
    """1x1 convolution to ef, axial attention, 1x1 convolution to 4f channels, with f = ``base_channels``.

    Args:
        attention_expansion: e, 4 in MaX-DeepLab-L. The attention has ef / 2 key and ef value channels.
    """

    def __init__(self,
                 in_channels: int,
                 base_channels: int,
                 drop_path_rate: float = 0.0,
                 norm_cfg: NormConfig = KMAX_NORM,
                 stride: int = 1,
                 act_cfg: ActConfig = KMAX_ACT,
                 attention_expansion: int = 2) -> None:
        super().__init__()
        channels, out_channels = attention_expansion * base_channels, EXPANSION * base_channels
        self.act = build_activation_layer(act_cfg)
        self.shortcut = _shortcut(in_channels, out_channels, norm_cfg, stride)
        self.reduce = ConvNormAct(in_channels, channels, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.attention = AxialAttention2d(channels, channels // 2, channels, norm_cfg=norm_cfg, stride=stride)
        self.expand = ConvNormAct(channels, out_channels, norm_cfg=norm_cfg, act=False, norm_init=0.0)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, 4f, h', w') with h' = (h - 1) // stride + 1."""
        x = self.act(x)
        return self.shortcut(x) + self.drop_path(self.expand(self.act(self.attention(self.reduce(x)))))
