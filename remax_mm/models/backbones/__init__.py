from .convnext import KMaXConvNeXt
from .mobilenet_v3 import KMaXMobileNetV3

__all__ = ['KMaXConvNeXt', 'KMaXMobileNetV3']
