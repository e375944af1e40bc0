from .mobilenet_v3 import KMaXMobileNetV3

__all__ = ['KMaXMobileNetV3']
