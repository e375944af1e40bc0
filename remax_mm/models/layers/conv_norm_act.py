"""Convolution, norm and activation with the initializations of kMaX-DeepLab."""
import math
from typing import Optional, Union

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmengine.config import ConfigDict
from torch import Tensor, nn

NormConfig = Union[dict, ConfigDict]
ActConfig = Union[dict, ConfigDict]

KMAX_NORM: dict = dict(type='BN', eps=1e-3, momentum=0.01)
"""Batch norm of kMaX-DeepLab. Momentum 0.01 is 0.99 in TensorFlow's convention."""

KMAX_ACT: dict = dict(type='GELU')
"""Activation of kMaX-DeepLab, the exact GELU."""

MAX_ACT: dict = dict(type='ReLU')
"""Activation of MaX-DeepLab."""


def fit_norm(norm_cfg: NormConfig, channels: int, dim: int = 2) -> dict:
    """Adapt ``norm_cfg`` to the shape of the inputs.

    Batch norm gets the type for the number of axes. Group norm gets a number of groups that divides the
    channels.

    Args:
        norm_cfg: not changed.
        channels: C.
        dim: 1 for inputs (B, C, L), 2 for (B, C, h, w).
    """
    norm_cfg = dict(norm_cfg)
    if dim == 1 and norm_cfg['type'] in ('BN', 'BN2d'):
        norm_cfg['type'] = 'BN1d'
    if norm_cfg['type'] == 'GN':
        # Some norms have very few channels: the heads of an attention, or the single mask channel.
        norm_cfg['num_groups'] = math.gcd(norm_cfg.get('num_groups', 32), channels)
        norm_cfg.pop('momentum', None)
    return norm_cfg


def build_norm(norm_cfg: NormConfig, channels: int, dim: int = 2, init: float = 1.0) -> nn.Module:
    """Build a norm layer whose weight starts at ``init``; see :func:`fit_norm` for the other arguments."""
    _, norm = build_norm_layer(fit_norm(norm_cfg, channels, dim), channels)
    nn.init.constant_(norm.weight, init)
    return norm


def truncated_normal_(weight: Tensor, std: float) -> None:
    """Fill with a normal distribution truncated at two standard deviations, like TensorFlow's initializer.

    Args:
        std: standard deviation before the truncation.
    """
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


class ConvNormAct(nn.Module):
    """Convolution, norm and activation, in this order. Zero padding keeps the size at stride 1.

    Args:
        kernel_size: odd.
        dim: 1 for inputs (B, C, L), 2 for (B, C, h, w).
        norm_cfg: None for no norm.
        act: False for no activation; ``act_cfg`` is then not used.
        init: initialization of the convolution: ``'he'`` for a truncated normal with std
            sqrt(2 / in_channels), as in deeplab2 without the kernel area, ``'xavier'`` for a uniform
            distribution, or the std of a truncated normal.
        norm_init: initial weight of the norm; 0 for the last norm of a residual branch.
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 kernel_size: int = 1,
                 *,
                 dim: int = 2,
                 stride: int = 1,
                 groups: int = 1,
                 bias: bool = False,
                 norm_cfg: Optional[NormConfig] = KMAX_NORM,
                 act: bool = True,
                 act_cfg: ActConfig = KMAX_ACT,
                 init: Union[str, float] = 'he',
                 norm_init: float = 1.0) -> None:
        super().__init__()
        conv_type = {1: nn.Conv1d, 2: nn.Conv2d}[dim]
        self.conv = conv_type(
            in_channels, out_channels, kernel_size, stride, (kernel_size - 1) // 2, groups=groups, bias=bias)
        self.norm = nn.Identity() if norm_cfg is None else build_norm(norm_cfg, out_channels, dim, norm_init)
        self.act = build_activation_layer(act_cfg) if act else nn.Identity()

        if init == 'xavier':
            nn.init.xavier_uniform_(self.conv.weight)
        else:
            truncated_normal_(self.conv.weight, math.sqrt(2 / in_channels) if init == 'he' else float(init))
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, h', w') with h' = (h - 1) // stride + 1; also 1D."""
        return self.act(self.norm(self.conv(x)))


class DepthwiseSeparableConv(nn.Sequential):
    """5x5 depthwise convolution and 1x1 convolution, each with norm and activation (heads of deeplab2)."""

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 norm_cfg: NormConfig = KMAX_NORM,
                 act_cfg: ActConfig = KMAX_ACT) -> None:
        cfgs: dict = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        super().__init__(
            ConvNormAct(in_channels, in_channels, 5, groups=in_channels, init='xavier', **cfgs),
            ConvNormAct(in_channels, out_channels, **cfgs))


def build_projection(in_channels: int,
                     out_channels: int,
                     stride: int = 1,
                     norm_cfg: NormConfig = KMAX_NORM,
                     act_cfg: ActConfig = KMAX_ACT) -> nn.Module:
    """Build activation, 1x1 convolution and norm; the identity if the number of channels stays the same.

    For inputs that are not activated: google-research/deeplab2, model/layers/resized_fuse.py.
    """
    if in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        build_activation_layer(act_cfg),
        ConvNormAct(in_channels, out_channels, stride=stride, norm_cfg=norm_cfg, act=False))
