"""Semantic segmentation heads. They exist in training only and are removed for inference.

The auxiliary heads on the backbone follow google-research/deeplab2 (Panoptic-DeepLab's single decoder,
model/decoder/panoptic_deeplab.py); the stage head is that of ReMaX (arXiv 2306.17319), Sec. 3.1.
"""
import math
from typing import Sequence, Tuple

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmseg.models.decode_heads.aspp_head import ASPPModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import (KMAX_ACT, KMAX_NORM, ActConfig, ConvNormAct, DepthwiseSeparableConv, NormConfig,
                      fit_norm, recompute, resize_to, run_blocks, truncated_normal_)

DROPOUT = 0.1
CLASSIFIER_STD = 0.01


def normalize_single_value(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply ``norm`` to a pooled feature (B, C, 1, 1), also where a batch holds a single image.

    There are no batch statistics of one value per channel, and torch raises an error. A batch norm then uses
    its running statistics and does not update them, in training as in evaluation. A synchronized batch norm
    sees the values of other devices and is called as it is.
    """
    if not (norm.training and isinstance(norm, _BatchNorm) and x.shape[0] == 1):
        return norm(x)
    if isinstance(norm, nn.SyncBatchNorm) and torch.distributed.is_initialized() and (
            torch.distributed.get_world_size(norm.process_group) > 1):
        return norm(x)
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)


class ImagePool(nn.Module):
    """Average over the whole image, 1x1 convolution, norm and activation, expanded to every pixel."""

    def __init__(self,
                 in_channels: int,
                 channels: int,
                 norm_cfg: NormConfig = KMAX_NORM,
                 act_cfg: ActConfig = KMAX_ACT) -> None:
        super().__init__()
        self.project = ConvNormAct(in_channels, channels, norm_cfg=norm_cfg, act_cfg=act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, channels, h, w)."""
        pooled = self.project.conv(x.mean(dim=(2, 3), keepdim=True))
        pooled = self.project.act(normalize_single_value(self.project.norm, pooled))
        return pooled.expand(-1, -1, *x.shape[-2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1 convolution, dilated 3x3 convolutions and image pooling, fused.

    Args:
        channels: of each branch and of the output.
        dilations: of the 3x3 convolutions.
    """

    def __init__(self,
                 in_channels: int,
                 channels: int = 256,
                 dilations: Sequence[int] = (6, 12, 18),
                 norm_cfg: NormConfig = KMAX_NORM,
                 act_cfg: ActConfig = KMAX_ACT) -> None:
        super().__init__()
        self.branches = ASPPModule((1, *dilations), in_channels, channels, None, fit_norm(norm_cfg, channels),
                                   act_cfg)
        for branch in self.branches:
            truncated_normal_(branch.conv.weight, math.sqrt(2 / in_channels))
        self.pool = ImagePool(in_channels, channels, norm_cfg, act_cfg)
        self.project = ConvNormAct(
            (len(dilations) + 2) * channels, channels, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, channels, h, w)."""
        branches = [*self.branches(x), self.pool(x)]
        return self.dropout(self.project(torch.cat(branches, dim=1)))


class LowLevelFusion(nn.Module):
    """Resize a feature map to a finer backbone feature and fuse the two.

    Args:
        channels: of the coarse map and of the output.
        low_level_in: channels of the finer feature.
        low_level_out: channels that it is reduced to; few, so that the coarse map dominates.
    """

    def __init__(self,
                 channels: int,
                 low_level_in: int,
                 low_level_out: int,
                 norm_cfg: NormConfig = KMAX_NORM,
                 act_cfg: ActConfig = KMAX_ACT) -> None:
        super().__init__()
        self.reduce = ConvNormAct(low_level_in, low_level_out, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.fuse = DepthwiseSeparableConv(channels + low_level_out, channels, norm_cfg, act_cfg)

    def forward(self, x: Tensor, low_level: Tensor) -> Tensor:
        """(B, channels, h', w') and (B, low_level_in, h, w) -> (B, channels, h, w)."""
        x = resize_to(x, low_level.shape[-2:])
        return self.fuse(torch.cat([x, self.reduce(low_level)], dim=1))


def classifier(in_channels: int, num_classes: int) -> ConvNormAct:
    """The last 1x1 convolution of every semantic head."""
    return ConvNormAct(in_channels, num_classes, bias=True, norm_cfg=None, act=False, init=CLASSIFIER_STD)


def uniform_bias(num_classes: int) -> float:
    """The bias at which the sigmoids of ``num_classes`` logits sum to 1; 0 for a single class."""
    return -math.log(max(num_classes - 1, 1))


@MODELS.register_module()
class ASPPSemanticHead(nn.Module):
    """Auxiliary semantic head of MaX-DeepLab-S and of kMaX-DeepLab on COCO and ADE20K, with output stride 4.

    Args:
        in_channels: of the backbone features res2, res3, res4, res5.
        num_classes: K, without void.
        aspp_channels: channels of all features but the reduced ones.
        low_level_channels: channels that res2 and res3 are reduced to.
        dilations: of ASPP.
        with_cp: whether training keeps the inputs of the head alone and computes everything inside again in
            the backward pass, which takes less memory and more time.

    Raises:
        ValueError: not four backbone features, or not two low-level widths.
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 num_classes: int,
                 aspp_channels: int = 256,
                 low_level_channels: Tuple[int, int] = (32, 64),
                 dilations: Sequence[int] = (6, 12, 18),
                 norm_cfg: NormConfig = KMAX_NORM,
                 act_cfg: ActConfig = KMAX_ACT,
                 with_cp: bool = False) -> None:
        super().__init__()
        self.with_cp = with_cp
        if len(in_channels) != 4 or len(low_level_channels) != 2:
            raise ValueError('Expected `in_channels` of ASPPSemanticHead for res2 to res5 and '
                             f'`low_level_channels` for res2 and res3, but got {in_channels} and '
                             f'{low_level_channels}')
        cfgs = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.aspp = ASPP(in_channels[3], aspp_channels, dilations, **cfgs)
        self.fuse_res3 = LowLevelFusion(aspp_channels, in_channels[1], low_level_channels[1], **cfgs)
        self.fuse_res2 = LowLevelFusion(aspp_channels, in_channels[0], low_level_channels[0], **cfgs)
        self.head = DepthwiseSeparableConv(aspp_channels, aspp_channels, **cfgs)
        self.classifier = classifier(aspp_channels, num_classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Semantic logits (B, K, h, w) at the size of res2, from the features res2 to res5."""
        res2, res3, _, res5 = features
        if self.with_cp:
            return recompute(self._decode, res2, res3, res5, module=self)
        return self._decode(res2, res3, res5)

    def _decode(self, res2: Tensor, res3: Tensor, res5: Tensor) -> Tensor:
        x = self.aspp(res5)
        x = self.fuse_res3(x, res3)
        x = self.fuse_res2(x, res2)
        return self.classifier(self.head(x))


@MODELS.register_module()
class SimpleSemanticHead(nn.Module):
    """Auxiliary semantic head of MaX-DeepLab-L and of kMaX-DeepLab on Cityscapes, on a single feature.

    Args:
        in_channels: of the backbone features; the last is used.
        num_classes: K, without void.
        channels: width of the depthwise separable convolution.
        with_cp: see :class:`ASPPSemanticHead`.
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 num_classes: int,
                 channels: int = 256,
                 norm_cfg: NormConfig = KMAX_NORM,
                 act_cfg: ActConfig = KMAX_ACT,
                 with_cp: bool = False) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.head = DepthwiseSeparableConv(in_channels[-1], channels, norm_cfg, act_cfg)
        self.classifier = classifier(channels, num_classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Semantic logits (B, K, h, w) at the size of the last of ``features``."""
        return run_blocks((self.head, self.classifier), features[-1], self.with_cp)


@MODELS.register_module()
class StageSemanticHead(nn.Module):
    """Semantic logits of one decoder stage for ReMask, m_sem = 1x1(ASPP(x)).

    Args:
        in_channels: of the stage's pixel feature.
        num_classes: K, without void.
        aspp_channels: width of ASPP.
        dilations: of ASPP.
        calibrated_bias: initialize the last bias to -log(K - 1). The softmax cross entropy of these logits is
            invariant to a constant, but ReMask takes their sigmoid: with zero bias, Eq. 2 of ReMaX initially
            multiplies the mask logits by 1 + K / 4 (34 on COCO), with this one by 1.5.
        with_cp: see :class:`ASPPSemanticHead`.
    """

    def __init__(self,
                 in_channels: int,
                 num_classes: int,
                 aspp_channels: int = 256,
                 dilations: Sequence[int] = (6, 12, 18),
                 calibrated_bias: bool = True,
                 norm_cfg: NormConfig = KMAX_NORM,
                 act_cfg: ActConfig = KMAX_ACT,
                 with_cp: bool = False) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.aspp = ASPP(in_channels, aspp_channels, dilations, norm_cfg, act_cfg)
        self.classifier = classifier(aspp_channels, num_classes)
        if calibrated_bias:
            nn.init.constant_(self.classifier.conv.get_parameter('bias'), uniform_bias(num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Semantic logits (B, K, h, w) from the pixel feature (B, C, h, w)."""
        return run_blocks((self.aspp, self.classifier), x, self.with_cp)
