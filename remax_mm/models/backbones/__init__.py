from .axial_resnet import AxialResNet
from .convnext import KMaXConvNeXt
from .deeplab2_resnet import DeepLab2ResNet
from .dual_path_axial_resnet import DualPathAxialResNet
from .mobilenet_v3 import KMaXMobileNetV3
from .stem_resnet import StemResNet

__all__ = [
    'AxialResNet', 'DeepLab2ResNet', 'DualPathAxialResNet', 'KMaXConvNeXt', 'KMaXMobileNetV3', 'StemResNet'
]
