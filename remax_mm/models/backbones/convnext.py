"""ConvNeXt as a backbone for images of any size.

Liu et al., A ConvNet for the 2020s (arXiv 2201.03545). The zero padding of the image and of the features
makes sizes of 32k + 1 pixels possible, as in google-research/deeplab2, model/pixel_encoder/convnext.py.
"""
import re
from itertools import accumulate
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..layers import LayerNorm2d, run_blocks, truncated_normal_

NORM_EPS = 1e-6
LAYER_SCALE = 1e-6
INIT_STD = 0.02
STEM_PADDING = (1, 2, 1, 2)  # left, right, top, bottom
DOWNSAMPLE_PADDING = (0, 1, 0, 1)


class ConvNeXtSpec(NamedTuple):
    """Number of blocks and channels of each of the four stages."""
    depths: Tuple[int, ...]
    channels: Tuple[int, ...]


ARCHITECTURES: Dict[str, ConvNeXtSpec] = dict(
    tiny=ConvNeXtSpec((3, 3, 9, 3), (96, 192, 384, 768)),
    small=ConvNeXtSpec((3, 3, 27, 3), (96, 192, 384, 768)),
    base=ConvNeXtSpec((3, 3, 27, 3), (128, 256, 512, 1024)),
    large=ConvNeXtSpec((3, 3, 27, 3), (192, 384, 768, 1536)))
"""Architectures of Section 3 of the paper, without XL."""

# Patterns of names in other releases, and names here, which are those of facebookresearch/ConvNeXt.
NAME_RULES = (
    # torchvision, which numbers the stem, the stages and the downsampling layers in order
    (r'^features\.([0246])\.([01])\.', lambda match: f'downsample_layers.{int(match[1]) // 2}.{match[2]}.'),
    (r'^features\.([1357])\.(\d+)\.', lambda match: f'stages.{int(match[1]) // 2}.{match[2]}.'),
    (r'\.block\.0\.', '.dwconv.'),
    (r'\.block\.2\.', '.norm.'),
    (r'\.block\.3\.', '.pwconv1.'),
    (r'\.block\.5\.', '.pwconv2.'),
    (r'\.layer_scale$', '.gamma'),
    # timm
    (r'^stem\.', 'downsample_layers.0.'),
    (r'^stages\.(\d)\.downsample\.', r'downsample_layers.\1.'),
    (r'^stages\.(\d)\.blocks\.', r'stages.\1.'),
    (r'\.conv_dw\.', '.dwconv.'),
    (r'\.mlp\.fc([12])\.', r'.pwconv\1.'),
)
CLASSIFIER_NAMES = re.compile(r'^(classifier|head|norm|norm_pre)\.')
RELEASE_NAMES = re.compile(r'^(features|stem|classifier|head|norm)\.')
"""Names by which weights of a release are recognized, because the model here does not have them."""


def rename_imagenet_weights(weights: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Rename the weights of a ConvNeXt of torchvision, timm or facebookresearch/ConvNeXt to the names here.

    Weights of the classifier and its norm are removed. Unknown names are kept.
    """
    renamed = {}
    for name, value in weights.items():
        if CLASSIFIER_NAMES.match(name):
            continue
        for pattern, replacement in NAME_RULES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value.flatten() if name.endswith('.gamma') else value
    return renamed


class ConvNeXtBlock(nn.Module):
    """Residual block: 7x7 depthwise convolution, layer norm, two linear layers, and a scale per channel."""

    def __init__(self, channels: int, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels, ), LAYER_SCALE))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        out = self.norm(self.dwconv(x).permute(0, 2, 3, 1))  # (B, h, w, C)
        out = self.gamma * self.pwconv2(self.act(self.pwconv1(out)))
        return x + self.drop_path(out.permute(0, 3, 1, 2))


@MODELS.register_module()
class KMaXConvNeXt(BaseModule):
    """ConvNeXt without classifier. Returns features at strides 4, 8, 16 and 32, without norms on them.

    ``init_cfg=dict(type='Pretrained', checkpoint=...)`` loads ImageNet weights in the format of
    facebookresearch/ConvNeXt (``https://dl.fbaipublicfiles.com/convnext/convnext_tiny_22k_224.pth``), of
    torchvision (``https://download.pytorch.org/models/convnext_tiny-983f1562.pth``) or of timm.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'`` or ``'large'``.
        with_stem: also return the output of the stem, first, at stride 4. kMaX-DeepLab uses it on Cityscapes
            as the finest feature (stage 1 in deeplab2; bytedance/kmax-deeplab declares stride 2 for it in
            kmax_deeplab/modeling/backbone/convnext.py).
        drop_path_rate: rate of the last block. The rates grow linearly from 0 in the first block.
        with_cp: whether training keeps the inputs of the blocks alone and computes everything inside them
            again in the backward pass, which takes less memory and more time.

    Raises:
        ValueError: unknown ``arch``.
    """

    def __init__(self,
                 arch: str,
                 with_stem: bool = False,
                 drop_path_rate: float = 0.0,
                 with_cp: bool = False,
                 init_cfg: Optional[Union[dict, list]] = None) -> None:
        super().__init__(init_cfg)
        if arch not in ARCHITECTURES:
            raise ValueError(f'Expected `arch` of KMaXConvNeXt to be one of {tuple(ARCHITECTURES)}, '
                             f'but got {arch!r}.')
        self.arch = arch
        self.with_stem = with_stem
        self.with_cp = with_cp
        depths, channels = ARCHITECTURES[arch]

        self.downsample_layers = nn.ModuleList()
        self.downsample_layers.append(
            nn.Sequential(nn.Conv2d(3, channels[0], 4, 4), LayerNorm2d(channels[0], eps=NORM_EPS)))
        for fine, coarse in zip(channels, channels[1:]):
            self.downsample_layers.append(
                nn.Sequential(LayerNorm2d(fine, eps=NORM_EPS), nn.Conv2d(fine, coarse, 2, 2)))

        rates = [drop_path_rate * i / (sum(depths) - 1) for i in range(sum(depths))]
        starts = accumulate(depths, initial=0)
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(width, rate) for rate in rates[start:start + depth]))
            for depth, width, start in zip(depths, channels, starts))

        # Only convolutions and linear layers have weights with more than one axis.
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                truncated_normal_(parameter, INIT_STD)
            elif name.endswith('.bias'):
                nn.init.zeros_(parameter)
        self._register_load_state_dict_pre_hook(_rename_imagenet_weights, with_module=True)

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, 3, H, W) -> features (B, C, h, w) from fine to coarse, with h = (H - 1) // stride + 1."""
        stem = self.downsample_layers[0](F.pad(x, STEM_PADDING))
        features = [stem, run_blocks(self.stages[0], stem, self.with_cp)]
        for downsample, stage in zip(self.downsample_layers[1:], self.stages[1:]):
            # The padding is before the layer norm, as in deeplab2: the norm maps the zeros to its bias.
            x = downsample(F.pad(features[-1], DOWNSAMPLE_PADDING))
            features.append(run_blocks(stage, x, self.with_cp))
        return tuple(features if self.with_stem else features[1:])


def _rename_imagenet_weights(model: KMaXConvNeXt, state_dict: Dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename weights of another release under ``prefix`` of ``state_dict``, in place.

    Raises:
        ValueError: the weights are those of another network.
    """
    # Files of facebookresearch/ConvNeXt have the weights in the entry `model`.
    nested = not prefix and isinstance(state_dict.get('model'), Mapping)
    own_keys = ['model'] if nested else [key for key in state_dict if key.startswith(prefix)]
    weights = state_dict['model'] if nested else {key[len(prefix):]: state_dict[key] for key in own_keys}
    if not any(RELEASE_NAMES.match(name) for name in weights):
        return

    renamed = rename_imagenet_weights(weights)
    wrong = _differences(renamed, model.state_dict())
    if wrong:
        raise ValueError(
            f'Expected the weights of a ConvNeXt with arch={model.arch!r}, but {len(wrong)} of them '
            f'do not fit, for example: {"; ".join(wrong[:3])}.')
    for key in own_keys:
        del state_dict[key]
    state_dict.update({prefix + name: value for name, value in renamed.items()})


def _differences(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> List[str]:
    """Describe each difference in names and shapes."""
    wrong = [f'{name} is missing' for name in expected if name not in weights]
    wrong += [f'{name} is unknown' for name in weights if name not in expected]
    wrong += [
        f'{name} has shape {tuple(weights[name].shape)} instead of {tuple(value.shape)}'
        for name, value in expected.items() if name in weights and weights[name].shape != value.shape
    ]
    return wrong
