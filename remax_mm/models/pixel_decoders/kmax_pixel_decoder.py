"""kMaX-DeepLab's pixel decoder (arXiv 2207.04044; deeplab2 model/pixel_decoder/kmax.py)."""
from typing import List, Sequence

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..layers import EXPANSION, KMAX_NORM, ConvNormAct, LayerNorm2d, NormConfig, build_block_group, resize_to


class ResizedFuse(nn.Module):
    """Sum of a coarse and a fine map at the fine map's size, each projected where its channels differ."""

    def __init__(self,
                 coarse_channels: int,
                 fine_channels: int,
                 out_channels: int,
                 norm_cfg: NormConfig = KMAX_NORM) -> None:
        super().__init__()
        self.coarse = self._projection(coarse_channels, out_channels, norm_cfg)
        self.fine = self._projection(fine_channels, out_channels, norm_cfg)

    @staticmethod
    def _projection(in_channels: int, out_channels: int, norm_cfg: NormConfig) -> nn.Module:
        if in_channels == out_channels:
            return nn.Identity()
        return nn.Sequential(nn.GELU(), ConvNormAct(in_channels, out_channels, norm_cfg=norm_cfg, act=False))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(B, coarse_channels, h', w') and (B, fine_channels, h, w) to (B, out_channels, h, w)."""
        return resize_to(self.coarse(coarse), fine.shape[-2:]) + self.fine(fine)


@MODELS.register_module()
class KMaXPixelDecoder(BaseModule):
    """Refine backbone features from the coarsest to the finest, one group of blocks per feature.

    The lists run from coarse to fine, as the decoder does; only ``in_channels`` runs as a backbone gives its
    features, from fine to coarse. Two features may have one stride: the backbone's order then decides.

    Args:
        in_channels: channels of the backbone features, fine to coarse, e.g. strides 4, 8, 16, 32.
        channels: base channels of each stage, coarse to fine; a stage returns 4 times as many.
        num_blocks: blocks of each stage.
        block_types: ``'axial'`` or ``'bottleneck'`` of each stage.
        drop_path_rate: probability of dropping a block's residual branch.

    Raises:
        ValueError: lists of different lengths, a stage without blocks, or an unknown block type.
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 channels: Sequence[int] = (512, 256, 128, 64),
                 num_blocks: Sequence[int] = (1, 5, 1, 1),
                 block_types: Sequence[str] = ('axial', 'axial', 'bottleneck', 'bottleneck'),
                 drop_path_rate: float = 0.0,
                 norm_cfg: NormConfig = KMAX_NORM) -> None:
        super().__init__()
        lengths = dict(
            in_channels=len(in_channels),
            channels=len(channels),
            num_blocks=len(num_blocks),
            block_types=len(block_types))
        if len(set(lengths.values())) != 1:
            raise ValueError('Expected one entry per stage in every list of the pixel decoder, '
                             f'but got {lengths}.')
        if min(num_blocks) < 1:
            raise ValueError('Expected at least one block in every stage, '
                             f'but got num_blocks={tuple(num_blocks)}.')
        in_channels = list(in_channels)[::-1]

        self.out_channels = [EXPANSION * base for base in channels]
        self.input_norms = nn.ModuleList(LayerNorm2d(width, eps=1e-6) for width in in_channels)
        self.fuses = nn.ModuleList(
            ResizedFuse(coarse, fine, base, norm_cfg)
            for coarse, fine, base in zip(self.out_channels, in_channels[1:], channels[1:]))
        stage_inputs = [in_channels[0], *channels[1:]]
        self.stages = nn.ModuleList(
            build_block_group(block_type, depth, width, base, drop_path_rate, norm_cfg)
            for block_type, depth, width, base in zip(block_types, num_blocks, stage_inputs, channels))

    def forward(self, features: Sequence[Tensor]) -> List[Tensor]:
        """Decode backbone features.

        Args:
            features: (B, in_channels[i], h, w) each, fine to coarse.

        Returns:
            (B, 4 * channels[i], h, w) each, coarse to fine, not activated.
        """
        features = [norm(feature) for norm, feature in zip(self.input_norms, reversed(features))]

        outputs = [self.stages[0](features[0])]
        for fuse, stage, feature in zip(self.fuses, self.stages[1:], features[1:]):
            outputs.append(stage(fuse(outputs[-1], feature)))
        return outputs
