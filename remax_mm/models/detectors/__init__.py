from .mask_transformer import MaskTransformer

__all__ = ['MaskTransformer']
