from .axial_resnet import AxialResNet
from .convnext import KMaXConvNeXt
from .mobilenet_v3 import KMaXMobileNetV3
from .stem_resnet import StemResNet

__all__ = ['AxialResNet', 'KMaXConvNeXt', 'KMaXMobileNetV3', 'StemResNet']
