"""Convolution, norm and activation with kMaX-DeepLab's initializations, and our one way to resize."""
import math
from typing import Optional, Union

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmengine.config import ConfigDict
from torch import Tensor, nn

NormConfig = Union[dict, ConfigDict]
ActConfig = Union[dict, ConfigDict]

KMAX_NORM: dict = dict(type='BN', eps=1e-3, momentum=0.01)
"""Batch norm's numbers in kMaX-DeepLab (deeplab2: momentum 0.99 in TensorFlow's convention, eps 1e-3)."""

KMAX_ACT: dict = dict(type='GELU')
"""kMaX-DeepLab's activation, the exact GELU."""

MAX_ACT: dict = dict(type='ReLU')
"""MaX-DeepLab's activation."""


def fit_norm(norm_cfg: NormConfig, channels: int, dim: int = 2) -> dict:
    """Fit ``norm_cfg`` to inputs (B, C, L) with ``dim=1``, (B, C, h, w) with 2: group norm at any width."""
    norm_cfg = dict(norm_cfg)
    if dim == 1 and norm_cfg['type'] in ('BN', 'BN2d'):
        norm_cfg['type'] = 'BN1d'
    if norm_cfg['type'] == 'GN':
        # Some norms here run over very few channels (heads of an attention, the one mask channel).
        norm_cfg['num_groups'] = math.gcd(norm_cfg.get('num_groups', 32), channels)
        norm_cfg.pop('momentum', None)
    return norm_cfg


def build_norm(norm_cfg: NormConfig, channels: int, dim: int = 2) -> nn.Module:
    """Build what ``norm_cfg`` names, for inputs (B, C, L) with ``dim=1``, (B, C, h, w) with 2."""
    return build_norm_layer(fit_norm(norm_cfg, channels, dim), channels)[1]


def truncated_normal_(weight: Tensor, std: float) -> None:
    """Fill with a normal distribution cut at two standard deviations, as TensorFlow's initializer does."""
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


class ConvNormAct(nn.Module):
    """Convolution, then norm, then activation; size-preserving padding unless told otherwise.

    Args:
        dim: 1 for (B, C, L), 2 for (B, C, h, w).
        padding: zeros on each side; None keeps the size at stride 1.
        norm_cfg: None leaves the norm out.
        act: False leaves the activation out, whatever ``act_cfg`` says.
        init: ``'he'`` (truncated normal with std sqrt(2 / in_channels); the reference ignores the kernel
            area), ``'xavier'`` (uniform), or the std of a truncated normal.
        norm_init: initial weight of the norm, 0 for the last norm of a residual branch.
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 kernel_size: int = 1,
                 *,
                 dim: int = 2,
                 stride: int = 1,
                 padding: Optional[int] = None,
                 dilation: int = 1,
                 groups: int = 1,
                 bias: bool = False,
                 norm_cfg: Optional[NormConfig] = KMAX_NORM,
                 act: bool = True,
                 act_cfg: ActConfig = KMAX_ACT,
                 init: Union[str, float] = 'he',
                 norm_init: float = 1.0) -> None:
        super().__init__()
        conv_type = {1: nn.Conv1d, 2: nn.Conv2d}[dim]
        if padding is None:
            padding = dilation * (kernel_size - 1) // 2
        self.conv = conv_type(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.norm = nn.Identity() if norm_cfg is None else build_norm(norm_cfg, out_channels, dim)
        self.act = build_activation_layer(act_cfg) if act else nn.Identity()

        if init == 'xavier':
            nn.init.xavier_uniform_(self.conv.weight)
        else:
            truncated_normal_(self.conv.weight, math.sqrt(2 / in_channels) if init == 'he' else float(init))
        if bias:
            nn.init.zeros_(self.conv.bias)
        if norm_cfg is not None:
            nn.init.constant_(self.norm.weight, norm_init)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class DepthwiseSeparableConv(nn.Sequential):
    """A 5x5 depthwise and a pointwise convolution, each with norm and activation, as in deeplab2's heads."""

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 norm_cfg: NormConfig = KMAX_NORM,
                 act_cfg: ActConfig = KMAX_ACT) -> None:
        cfgs = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        super().__init__(
            ConvNormAct(in_channels, in_channels, 5, groups=in_channels, init='xavier', **cfgs),
            ConvNormAct(in_channels, out_channels, **cfgs))
