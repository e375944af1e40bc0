"""Converters of published kMaX-DeepLab checkpoints."""
from .convert_deeplab2 import convert_deeplab2
from .convert_kmax import convert_kmax

__all__ = ['convert_deeplab2', 'convert_kmax']
