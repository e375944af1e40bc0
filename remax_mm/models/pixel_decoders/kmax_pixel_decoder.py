"""Pixel decoder of kMaX-DeepLab (arXiv 2207.04044; google-research/deeplab2, model/pixel_decoder/kmax.py)."""
from typing import List, Sequence

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..layers import (EXPANSION, KMAX_NORM, AxialBlock, BottleneckBlock, LayerNorm2d, NormConfig,
                      build_projection, resize_to, run_blocks)

BLOCK_TYPES = dict(axial=AxialBlock, bottleneck=BottleneckBlock)


def build_block_group(block_type: str,
                      num_blocks: int,
                      in_channels: int,
                      base_channels: int,
                      norm_cfg: NormConfig = KMAX_NORM) -> nn.Sequential:
    """Build a sequence of residual blocks of one type and one resolution.

    Raises:
        ValueError: unknown block type.
    """
    if block_type not in BLOCK_TYPES:
        raise ValueError(f'Expected a block type among {sorted(BLOCK_TYPES)}, but got {block_type!r}.')
    block = BLOCK_TYPES[block_type]
    widths = [in_channels] + [EXPANSION * base_channels] * (num_blocks - 1)
    return nn.Sequential(*(block(width, base_channels, norm_cfg=norm_cfg) for width in widths))


class ResizedFuse(nn.Module):
    """Sum of a coarse and a fine feature at the fine size; see :func:`build_projection` for the channels."""

    def __init__(self,
                 coarse_channels: int,
                 fine_channels: int,
                 out_channels: int,
                 norm_cfg: NormConfig = KMAX_NORM) -> None:
        super().__init__()
        self.coarse = build_projection(coarse_channels, out_channels, norm_cfg=norm_cfg)
        self.fine = build_projection(fine_channels, out_channels, norm_cfg=norm_cfg)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(B, coarse_channels, h', w') and (B, fine_channels, h, w) -> (B, out_channels, h, w)."""
        return resize_to(self.coarse(coarse), fine.shape[-2:]) + self.fine(fine)


@MODELS.register_module()
class KMaXPixelDecoder(BaseModule):
    """Decode backbone features from the coarsest to the finest, with one stage of blocks per feature.

    ``in_channels`` is in the order of the backbone features, fine to coarse. The other lists are in the order
    of the stages, coarse to fine. Two backbone features may have the same stride.

    Args:
        in_channels: channels of the backbone features, for example at strides 4, 8, 16 and 32.
        channels: base channels of each stage, whose output has 4 times as many channels.
        num_blocks: number of blocks of each stage.
        block_types: block type of each stage, ``'axial'`` or ``'bottleneck'``.
        with_cp: whether training keeps the inputs of the blocks alone and computes everything inside them
            again in the backward pass, which takes less memory and more time.

    Raises:
        ValueError: lists of different lengths, a stage without blocks, or an unknown block type.
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 channels: Sequence[int] = (512, 256, 128, 64),
                 num_blocks: Sequence[int] = (1, 5, 1, 1),
                 block_types: Sequence[str] = ('axial', 'axial', 'bottleneck', 'bottleneck'),
                 norm_cfg: NormConfig = KMAX_NORM,
                 with_cp: bool = False) -> None:
        super().__init__()
        self.with_cp = with_cp
        lengths = dict(
            in_channels=len(in_channels),
            channels=len(channels),
            num_blocks=len(num_blocks),
            block_types=len(block_types))
        if len(set(lengths.values())) != 1:
            raise ValueError(
                f'Expected one entry per stage in every list of KMaXPixelDecoder, but got {lengths}.')
        if min(num_blocks) < 1:
            raise ValueError('Expected at least one block in each stage of KMaXPixelDecoder, but got '
                             f'num_blocks={tuple(num_blocks)}.')
        in_channels = list(in_channels)[::-1]

        self.out_channels = [EXPANSION * base for base in channels]
        self.input_norms = nn.ModuleList(LayerNorm2d(width, eps=1e-6) for width in in_channels)
        self.fuses = nn.ModuleList(
            ResizedFuse(coarse, fine, base, norm_cfg)
            for coarse, fine, base in zip(self.out_channels, in_channels[1:], channels[1:]))
        stage_inputs = [in_channels[0], *channels[1:]]
        self.stages = nn.ModuleList(
            build_block_group(block_type, depth, width, base, norm_cfg)
            for block_type, depth, width, base in zip(block_types, num_blocks, stage_inputs, channels))

    def forward(self, features: Sequence[Tensor]) -> List[Tensor]:
        """Decode backbone features.

        Args:
            features: (B, in_channels[i], h, w) for each i, fine to coarse.

        Returns:
            (B, 4 * channels[i], h, w) for each i, coarse to fine, not activated.
        """
        features = [norm(feature) for norm, feature in zip(self.input_norms, reversed(features))]

        outputs = [run_blocks(self.stages[0], features[0], self.with_cp)]
        for fuse, stage, feature in zip(self.fuses, self.stages[1:], features[1:]):
            outputs.append(run_blocks(stage, fuse(outputs[-1], feature), self.with_cp))
        return outputs
