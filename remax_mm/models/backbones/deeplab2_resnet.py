"""TensorFlow's ResNet-50 of kMaX-DeepLab: without a max-pool, and with features that are not activated.

google-research/deeplab2, model/pixel_encoder/axial_resnet.py (``resnet50``), model/encoder/axial_resnet.py
and model/layers/axial_blocks.py. The PyTorch release, and so most of our configs, takes the usual ResNet-50.
"""
from typing import Any, Optional, Sequence, Tuple, Union

import torch.nn.functional as F
from mmdet.models.backbones.resnet import Bottleneck, ResNet
from mmdet.registry import MODELS
from torch import Tensor

from ..layers import KMAX_NORM, NormConfig

DEPTH = 50
NUM_BLOCKS = (3, 4, 6, 3)
STRIDES = (2, 2, 2, 2)
"""Of the four stages: the first one halves the size in place of the max-pool."""


class PreActBottleneck(Bottleneck):
    """ResNet's bottleneck that activates its input and returns the sum as it is.

    In a row such blocks compute what others do; only what the last one returns is not activated.
    """

    def __init__(self, *args: Any, init_cfg: Optional[dict] = None, **kwargs: Any) -> None:
        zero_residual = dict(type='Constant', val=0, override=dict(name='norm3'))
        super().__init__(*args, init_cfg=init_cfg or zero_residual, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 4f, h', w'), h' = (h - 1) // stride + 1, for ``planes`` f."""
        x = F.relu(x)  # in place it would activate the feature that is returned
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.relu(self.norm2(self.conv2(out)))
        return shortcut + self.norm3(self.conv3(out))


@MODELS.register_module()
class DeepLab2ResNet(ResNet):
    """ResNet-50 with the parameters of mmdet's, by the same names, giving features at strides 4, 8, 16, 32.

    ImageNet weights of it are public for TensorFlow only.

    Args:
        out_indices: which features to return, 0 for stride 4 to 3 for stride 32.
        with_stem: return the stem's output before them, at stride 2 and not activated either.
    """
    arch_settings = {DEPTH: (PreActBottleneck, NUM_BLOCKS)}

    def __init__(self,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 with_stem: bool = False,
                 norm_cfg: NormConfig = KMAX_NORM,
                 init_cfg: Optional[Union[dict, list]] = None) -> None:
        super().__init__(
            DEPTH,
            strides=STRIDES,
            out_indices=out_indices,
            norm_cfg=norm_cfg,
            norm_eval=False,
            init_cfg=init_cfg)
        del self.maxpool
        self.with_stem = with_stem

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, 3, H, W) -> the stem's output if asked for, then one (B, C, h, w) for each of ``out_indices``.

        All have h = (H - 1) // stride + 1.
        """
        stem = x = self.norm1(self.conv1(x))
        features = []
        for name in self.res_layers:
            x = getattr(self, name)(x)
            features.append(x)

        chosen = tuple(features[index] for index in self.out_indices)
        return (stem, *chosen) if self.with_stem else chosen
