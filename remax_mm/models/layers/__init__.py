from .conv_norm_act import KMAX_NORM, ConvNormAct, DepthwiseSeparableConv, build_norm, resize_to, truncated_normal_

__all__ = ['KMAX_NORM', 'ConvNormAct', 'DepthwiseSeparableConv', 'build_norm', 'resize_to', 'truncated_normal_']
