"""ResNet-50 of the TensorFlow release of kMaX-DeepLab: no max-pool, and features without activation.

google-research/deeplab2, model/pixel_encoder/axial_resnet.py (``resnet50``), model/encoder/axial_resnet.py
and model/layers/axial_blocks.py. The PyTorch release and most configs here use the standard ResNet-50.
"""
from typing import Any, Optional, Tuple, Union

import torch.nn.functional as F
from mmdet.models.backbones.resnet import Bottleneck, ResNet
from mmdet.registry import MODELS
from torch import Tensor

from ..layers import KMAX_NORM, NormConfig, run_blocks

DEPTH = 50
NUM_BLOCKS = (3, 4, 6, 3)
STRIDES = (2, 2, 2, 2)
"""Strides of the four stages. The first stage has stride 2 because there is no max-pool."""


class PreActBottleneck(Bottleneck):
    """ResNet bottleneck with the activation at its input instead of its output.

    A sequence of such blocks computes the same as a sequence of ResNet bottlenecks, except that the last
    output is not activated.
    """

    def __init__(self, *args: Any, init_cfg: Optional[dict] = None, **kwargs: Any) -> None:
        zero_residual = dict(type='Constant', val=0, override=dict(name='norm3'))
        super().__init__(*args, init_cfg=init_cfg or zero_residual, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 4f, h', w') with h' = (h - 1) // stride + 1 and f = ``planes``."""
        x = F.relu(x)  # Not in place: the backbone also returns the input of the first block of a stage.
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.relu(self.norm2(self.conv2(out)))
        return shortcut + self.norm3(self.conv3(out))


@MODELS.register_module()
class DeepLab2ResNet(ResNet):
    """ResNet-50 whose features at strides 4, 8, 16 and 32 have no activation.

    The parameters have the names and shapes of mmdet's ResNet-50. ImageNet weights are public for TensorFlow
    only.

    Args:
        with_stem: also return the output of the stem, first, at stride 2 and without activation.
        with_cp: whether training keeps the inputs of the blocks alone and computes everything inside them
            again in the backward pass, which takes less memory and more time.
    """
    arch_settings = {DEPTH: (PreActBottleneck, NUM_BLOCKS)}

    def __init__(self,
                 with_stem: bool = False,
                 norm_cfg: NormConfig = KMAX_NORM,
                 with_cp: bool = False,
                 init_cfg: Optional[Union[dict, list]] = None) -> None:
        super().__init__(DEPTH, strides=STRIDES, norm_cfg=norm_cfg, norm_eval=False, init_cfg=init_cfg)
        del self.maxpool
        self.with_stem = with_stem
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, 3, H, W) -> features (B, C, h, w) from fine to coarse, with h = (H - 1) // stride + 1."""
        features = [self.norm1(self.conv1(x))]
        for name in self.res_layers:
            features.append(run_blocks(getattr(self, name), features[-1], self.with_cp))
        return tuple(features if self.with_stem else features[1:])
