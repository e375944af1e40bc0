from .axial_attention import AxialAttention1d, AxialAttention2d, RelativePosition
from .channel_layer_norm import ChannelLayerNorm
from .conv_norm_act import (KMAX_ACT, KMAX_NORM, MAX_ACT, ActConfig, ConvNormAct, DepthwiseSeparableConv,
                            NormConfig, build_norm, fit_norm, resize_to, truncated_normal_)
from .dual_path_attention import DualPathLayer, PathAttention, PathProjection, attend
from .full_precision import full_precision
from .mask_predictor import MaskPredictor, add_void_prior
from .residual_blocks import EXPANSION, AxialBlock, BasicBlock, BottleneckBlock, build_block_group

__all__ = [
    'AxialAttention1d', 'AxialAttention2d', 'RelativePosition', 'ChannelLayerNorm', 'KMAX_ACT', 'KMAX_NORM',
    'MAX_ACT', 'ActConfig', 'ConvNormAct', 'DepthwiseSeparableConv', 'NormConfig', 'build_norm', 'fit_norm',
    'resize_to', 'truncated_normal_', 'DualPathLayer', 'PathAttention', 'PathProjection', 'attend',
    'full_precision', 'MaskPredictor', 'add_void_prior', 'EXPANSION', 'AxialBlock', 'BasicBlock',
    'BottleneckBlock', 'build_block_group'
]
