from .attention import attend
from .compilation import not_compiled
from .conv_norm_act import (KMAX_ACT, KMAX_NORM, MAX_ACT, ActConfig, ConvNormAct, DepthwiseSeparableConv,
                            NormConfig, build_norm, build_projection, fit_norm, truncated_normal_)
from .dual_path_attention import DualPathLayer
from .layer_norm import LayerNorm2d
from .mask_predictor import MaskPredictor, prior_logit
from .owner_sums import sum_by_owner
from .recomputation import keeps_activations, recompute, recompute_activations, recompute_cheap, run_blocks
from .residual_blocks import EXPANSION, AxialBlock, BasicBlock, BottleneckBlock
from .resize import find_stride, resize_to

__all__ = [
    'ActConfig', 'AxialBlock', 'BasicBlock', 'BottleneckBlock', 'ConvNormAct', 'DepthwiseSeparableConv',
    'DualPathLayer', 'EXPANSION', 'KMAX_ACT', 'KMAX_NORM', 'LayerNorm2d', 'MAX_ACT', 'MaskPredictor',
    'NormConfig', 'attend', 'build_norm', 'build_projection', 'find_stride', 'fit_norm', 'keeps_activations',
    'not_compiled', 'prior_logit', 'recompute', 'recompute_activations', 'recompute_cheap', 'resize_to',
    'run_blocks', 'sum_by_owner', 'truncated_normal_'
]
