"""The axial ResNet-50 of MaX-DeepLab-S ("MaX-S") as a pixel encoder.

Wang et al., MaX-DeepLab (arXiv 2012.00759), in the form that kMaX-DeepLab uses, with GELU and stride 32:
google-research/deeplab2, model/pixel_encoder/axial_resnet.py and model/layers/axial_block_groups.py.
"""
from typing import Optional, Sequence, Tuple, Union

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..layers import (EXPANSION, KMAX_ACT, KMAX_NORM, ActConfig, AxialBlock, BottleneckBlock, ConvNormAct,
                      NormConfig)

STEM_CHANNELS = (64, 64, 128)
NUM_STAGES = 4
ATTENTION_STRIDE = 16
"""Blocks whose input has this stride or a larger one use axial attention, and drop their path."""


def drop_path_rate_at(stride: int, last_rate: float, first_stride: int = ATTENTION_STRIDE) -> float:
    """Rate of a block whose input has ``stride``: linear in the stage, ``last_rate`` at stride 32.

    deeplab2 drops no path below ``first_stride`` (axial_block_groups.py, ``drop_path_beyond_stride``).
    """
    stage = stride.bit_length() - 2  # 1 at stride 4, 4 at stride 32
    return last_rate * stage / NUM_STAGES if stride >= first_stride else 0.0


def build_stem(channels: Sequence[int],
               norm_cfg: NormConfig = KMAX_NORM,
               act_cfg: ActConfig = KMAX_ACT) -> nn.Sequential:
    """3x3 convolutions from (B, 3, H, W), the first of stride 2, to ``channels``, the last not activated."""
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


@MODELS.register_module()
class AxialResNet(BaseModule):
    """ResNet-50 with a stem of three 3x3 convolutions, and with axial attention from stride 16 on.

    Gives features at strides 4, 8, 16 and 32: the sums at the ends of the stages, not activated, as the
    pixel decoder of kMaX-DeepLab takes them. (deeplab2's auxiliary semantic head, a part of the training
    only, takes stride 32 in the same form, but strides 4 and 8 after a GELU; here it sees all of them not
    activated.)

    No ImageNet weights in PyTorch's format are public for it: start from a checkpoint of one's own.

    Args:
        num_blocks: blocks of each stage.
        channels: base channels of each stage; a stage returns 4 times as many. Multiples of 8 where attention
            is used.
        out_indices: which features to return, 0 for stride 4 to 3 for stride 32.
        with_stem: return the stem's output before them, at stride 2 and not activated either.
        drop_path_rate: of the blocks at stride 32, three quarters of it for those at 16, 0 before.

    Raises:
        ValueError: an argument is outside its range.
    """

    def __init__(self,
                 num_blocks: Sequence[int] = (3, 4, 6, 3),
                 channels: Sequence[int] = (64, 128, 256, 512),
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 with_stem: bool = False,
                 norm_cfg: NormConfig = KMAX_NORM,
                 drop_path_rate: float = 0.0,
                 init_cfg: Optional[Union[dict, list]] = None) -> None:
        super().__init__(init_cfg)
        if len(num_blocks) != NUM_STAGES or len(channels) != NUM_STAGES or min(num_blocks) < 1:
            raise ValueError(
                f'Expected `num_blocks` and `channels` of AxialResNet for {NUM_STAGES} stages of at '
                f'least one block, but got {tuple(num_blocks)} and {tuple(channels)}')
        if not set(out_indices) <= set(range(NUM_STAGES)):
            raise ValueError(f'Expected `out_indices` of AxialResNet to be among {tuple(range(NUM_STAGES))}, '
                             f'but got {tuple(out_indices)}')
        self.out_indices = tuple(out_indices)
        self.with_stem = with_stem
        self.stem = build_stem(STEM_CHANNELS, norm_cfg)

        # The first block of a stage halves the size, so it still belongs to the stride before.
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
        """(B, 3, H, W) -> the stem's output if asked for, then one (B, C, h, w) for each of ``out_indices``.

        All have h = (H - 1) // stride + 1.
        """
        stem = x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)

        chosen = tuple(features[index] for index in self.out_indices)
        return (stem, *chosen) if self.with_stem else chosen
