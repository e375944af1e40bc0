from .attention import attend
from .axial_attention import AxialAttention1d, AxialAttention2d, RelativePosition
from .conv_norm_act import (KMAX_ACT, KMAX_NORM, MAX_ACT, ActConfig, ConvNormAct, DepthwiseSeparableConv,
                            NormConfig, build_norm, fit_norm, truncated_normal_)
from .dual_path_attention import DualPathLayer, PathAttention, PathProjection
from .layer_norm import LayerNorm2d
from .mask_predictor import MaskPredictor, add_void_prior
from .owner_sums import sum_by_owner
from .residual_blocks import EXPANSION, AxialBlock, BasicBlock, BottleneckBlock, build_block_group
from .resize import find_stride, resize_to

__all__ = [
    'attend', 'AxialAttention1d', 'AxialAttention2d', 'RelativePosition', 'KMAX_ACT', 'KMAX_NORM', 'MAX_ACT',
    'ActConfig', 'ConvNormAct', 'DepthwiseSeparableConv', 'NormConfig', 'build_norm', 'fit_norm',
    'truncated_normal_', 'DualPathLayer', 'PathAttention', 'PathProjection', 'LayerNorm2d', 'MaskPredictor',
    'add_void_prior', 'EXPANSION', 'AxialBlock', 'BasicBlock', 'BottleneckBlock', 'build_block_group',
    'find_stride', 'resize_to', 'sum_by_owner'
]
