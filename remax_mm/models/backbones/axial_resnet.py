"""The axial ResNet-50 of MaX-DeepLab-S ("MaX-S") as a backbone.

Wang et al., MaX-DeepLab (arXiv 2012.00759), with GELU and stride 32 as in kMaX-DeepLab:
google-research/deeplab2, model/pixel_encoder/axial_resnet.py and model/layers/axial_block_groups.py.
"""
from typing import Optional, Sequence, Tuple, Union

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..layers import (EXPANSION, KMAX_ACT, KMAX_NORM, ActConfig, AxialBlock, BottleneckBlock, ConvNormAct,
                      NormConfig, run_blocks)

STEM_CHANNELS = (64, 64, 128)
NUM_STAGES = 4
ATTENTION_STRIDE = 16
"""Blocks use axial attention and drop path if their input has this stride or a larger one."""


def drop_path_rate_at(stride: int, last_rate: float, first_stride: int = ATTENTION_STRIDE) -> float:
    """Return the drop path rate of a block, which grows linearly with the stage.

    google-research/deeplab2, model/layers/axial_block_groups.py (``drop_path_beyond_stride``).

    Args:
        stride: of the block's input.
        last_rate: rate at stride 32.
        first_stride: the rate is 0 at smaller strides.
    """
    stage = stride.bit_length() - 2  # 1 at stride 4, 4 at stride 32
    return last_rate * stage / NUM_STAGES if stride >= first_stride else 0.0


def build_stem(channels: Sequence[int],
               norm_cfg: NormConfig = KMAX_NORM,
               act_cfg: ActConfig = KMAX_ACT) -> nn.Sequential:
    """Build 3x3 convolutions on the image (B, 3, H, W): stride 2 in the first, no activation after the last.

    Args:
        channels: output channels of each convolution.
    """
    stem = nn.Sequential()
    for index, (before, width) in enumerate(zip((3, *channels), channels)):
        stem.append(
            ConvNormAct(
                before,
                width,
                3,
                stride=1 if index else 2,
                norm_cfg=norm_cfg,
                act=index < len(channels) - 1,
                act_cfg=act_cfg))
    return stem


def check_stages(backbone: str, num_blocks: Sequence[int], channels: Sequence[int],
                 num_stages: Sequence[int]) -> None:
    """Raise a ValueError unless both lists have one of ``num_stages`` entries and each stage has a block."""
    if len(num_blocks) != len(channels) or len(channels) not in num_stages or min(num_blocks) < 1:
        raise ValueError(
            f'Expected `num_blocks` and `channels` of {backbone} for {" or ".join(map(str, num_stages))} '
            f'stages of at least one block, but got {tuple(num_blocks)} and {tuple(channels)}.')


@MODELS.register_module()
class AxialResNet(BaseModule):
    """ResNet-50 with a stem of three 3x3 convolutions and with axial attention from stride 16 on.

    Returns the features at strides 4, 8, 16 and 32 without activation. In deeplab2 the auxiliary semantic
    head, which is used in training only, gets strides 4 and 8 after a GELU; here it gets all of them without.

    ImageNet weights are public for TensorFlow only.

    Args:
        num_blocks: number of blocks of each stage.
        channels: base channels of each stage, whose output has 4 times as many channels. Multiples of 8 in
            stages with attention.
        with_stem: also return the output of the stem, first, at stride 2 and without activation.
        drop_path_rate: rate of the last blocks, see :func:`drop_path_rate_at`.
        with_cp: whether training keeps the inputs of the blocks alone and computes everything inside them
            again in the backward pass, which takes less memory and more time.

    Raises:
        ValueError: ``num_blocks`` or ``channels`` do not fit four stages.
    """

    def __init__(self,
                 num_blocks: Sequence[int] = (3, 4, 6, 3),
                 channels: Sequence[int] = (64, 128, 256, 512),
                 with_stem: bool = False,
                 norm_cfg: NormConfig = KMAX_NORM,
                 drop_path_rate: float = 0.0,
                 with_cp: bool = False,
                 init_cfg: Optional[Union[dict, list]] = None) -> None:
        super().__init__(init_cfg)
        check_stages('AxialResNet', num_blocks, channels, (NUM_STAGES, ))
        self.with_stem = with_stem
        self.with_cp = with_cp
        self.stem = build_stem(STEM_CHANNELS, norm_cfg)

        # The input of a stage's first block has the stride of the stage before.
        self.stages = nn.ModuleList()
        width, stride = STEM_CHANNELS[-1], 2
        for depth, base in zip(num_blocks, channels):
            stage = nn.Sequential()
            for index in range(depth):
                block = AxialBlock if stride >= ATTENTION_STRIDE else BottleneckBlock
                rate = drop_path_rate_at(stride, drop_path_rate)
                block_stride = 2 if index == 0 else 1
                stage.append(block(width, base, rate, norm_cfg, stride=block_stride))
                width, stride = EXPANSION * base, stride * block_stride
            self.stages.append(stage)

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, 3, H, W) -> features (B, C, h, w) from fine to coarse, with h = (H - 1) // stride + 1."""
        features = [self.stem(x)]
        for stage in self.stages:
            features.append(run_blocks(stage, features[-1], self.with_cp))
        return tuple(features if self.with_stem else features[1:])
