"""ConvNeXt as a pixel encoder for images of any size.

Liu et al., A ConvNet for the 2020s (arXiv 2201.03545). The zeros around the image and around the features,
which let sizes 32k + 1 through, follow google-research/deeplab2, model/pixel_encoder/convnext.py.
"""
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..layers import LayerNorm2d, truncated_normal_

NORM_EPS = 1e-6
LAYER_SCALE = 1e-6
INIT_STD = 0.02
STEM_PADDING = (1, 2, 1, 2)  # left, right, top, bottom
DOWNSAMPLE_PADDING = (0, 1, 0, 1)


class ConvNeXtSpec(NamedTuple):
    """Blocks and channels of the four stages."""
    depths: Tuple[int, ...]
    channels: Tuple[int, ...]


ARCHITECTURES: Dict[str, ConvNeXtSpec] = dict(
    tiny=ConvNeXtSpec((3, 3, 9, 3), (96, 192, 384, 768)),
    small=ConvNeXtSpec((3, 3, 27, 3), (96, 192, 384, 768)),
    base=ConvNeXtSpec((3, 3, 27, 3), (128, 256, 512, 1024)),
    large=ConvNeXtSpec((3, 3, 27, 3), (192, 384, 768, 1536)))
"""Section 2 of the paper, without the XL model."""

# Names in other releases -> names here, which are those of facebookresearch/ConvNeXt.
NAME_RULES = (
    # torchvision numbers its stem, stages and downsampling layers in the order of the forward.
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
CLASSIFIER = re.compile(r'^(classifier|head|norm|norm_pre)\.')
MARKS_OF_RELEASES = re.compile(r'^(features|stem|classifier|head|norm)\.')


def rename_imagenet_weights(weights: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Weights of a ConvNeXt of torchvision, timm or facebookresearch/ConvNeXt under our names.

    The classifier and its norm are left out; a name that none of them uses stays as it is.
    """
    renamed = {}
    for name, value in weights.items():
        if CLASSIFIER.match(name):
            continue
        for pattern, replacement in NAME_RULES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value.flatten() if name.endswith('.gamma') else value
    return renamed


class ConvNeXtBlock(nn.Module):
    """7x7 depthwise convolution, layer norm, and a two-layer perceptron of each pixel, scaled by channel."""

    def __init__(self, channels: int, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels, ), LAYER_SCALE))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h, w)."""
        out = self.norm(self.dwconv(x).permute(0, 2, 3, 1))  # (B, h, w, C)
        out = self.gamma * self.pwconv2(F.gelu(self.pwconv1(out)))
        return x + self.drop_path(out.permute(0, 3, 1, 2))


@MODELS.register_module()
class KMaXConvNeXt(BaseModule):
    """ConvNeXt without its classifier, giving features at strides 4, 8, 16 and 32, without norms on them.

    ImageNet weights come with ``init_cfg=dict(type='Pretrained', checkpoint=...)`` from files of
    facebookresearch/ConvNeXt (``https://dl.fbaipublicfiles.com/convnext/convnext_tiny_22k_224.pth``),
    torchvision (``https://download.pytorch.org/models/convnext_tiny-983f1562.pth``) or timm.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'`` or ``'large'``.
        out_indices: which features to return, 0 for stride 4 to 3 for stride 32.
        with_stem: return the stem's output before them, a second feature of stride 4. On Cityscapes
            kMaX-DeepLab takes it for the finest one (deeplab2 has it as stage 1; bytedance/kmax-deeplab,
            kmax_deeplab/modeling/backbone/convnext.py, declares its stride to be 2).
        drop_path_rate: of the last block; grows linearly from 0 at the first.

    Raises:
        ValueError: an argument is outside its range.
    """

    def __init__(self,
                 arch: str,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 with_stem: bool = False,
                 drop_path_rate: float = 0.0,
                 init_cfg: Optional[Union[dict, list]] = None) -> None:
        super().__init__(init_cfg)
        if arch not in ARCHITECTURES:
            raise ValueError(f'Expected `arch` of KMaXConvNeXt to be one of {tuple(ARCHITECTURES)}, '
                             f'but got {arch!r}')
        if not set(out_indices) <= {0, 1, 2, 3}:
            raise ValueError('Expected `out_indices` of KMaXConvNeXt to be among (0, 1, 2, 3), '
                             f'but got {tuple(out_indices)}')
        self.arch = arch
        self.out_indices = tuple(out_indices)
        self.with_stem = with_stem
        depths, channels = ARCHITECTURES[arch]

        self.downsample_layers = nn.ModuleList()
        self.downsample_layers.append(
            nn.Sequential(nn.Conv2d(3, channels[0], 4, 4), LayerNorm2d(channels[0], eps=NORM_EPS)))
        for fine, coarse in zip(channels, channels[1:]):
            self.downsample_layers.append(
                nn.Sequential(LayerNorm2d(fine, eps=NORM_EPS), nn.Conv2d(fine, coarse, 2, 2)))

        last = sum(depths) - 1
        rates = iter(drop_path_rate * i / last for i in range(last + 1))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(width, next(rates)) for _ in range(depth)))
            for depth, width in zip(depths, channels))

        self._start_from_scratch()
        self._register_load_state_dict_pre_hook(_accept_imagenet_weights, with_module=True)

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, 3, H, W) -> the stem's output if asked for, then one (B, C, h, w) for each of ``out_indices``.

        All have h = (H - 1) // stride + 1.
        """
        stem = self.downsample_layers[0](F.pad(x, STEM_PADDING))
        features = [self.stages[0](stem)]
        for downsample, stage in zip(self.downsample_layers[1:], self.stages[1:]):
            # The zeros come before the layer norm, which turns them into its bias, as in deeplab2.
            features.append(stage(downsample(F.pad(features[-1], DOWNSAMPLE_PADDING))))

        chosen = tuple(features[index] for index in self.out_indices)
        return (stem, *chosen) if self.with_stem else chosen

    def _start_from_scratch(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                truncated_normal_(module.weight, INIT_STD)
                nn.init.zeros_(module.bias)


def _accept_imagenet_weights(module: nn.Module, state_dict: Dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename, in place, weights of another release that ``state_dict`` holds under ``prefix``.

    Raises:
        ValueError: they are those of another network.
    """
    # The files of facebookresearch/ConvNeXt hold their weights one level down.
    nested = not prefix and isinstance(state_dict.get('model'), Mapping)
    own_keys = ['model'] if nested else [key for key in state_dict if key.startswith(prefix)]
    weights = state_dict['model'] if nested else {key[len(prefix):]: state_dict[key] for key in own_keys}
    if not any(MARKS_OF_RELEASES.match(name) for name in weights):
        return

    renamed = rename_imagenet_weights(weights)
    wrong = _differences(renamed, module.state_dict())
    if wrong:
        raise ValueError(
            f'Expected the weights of a ConvNeXt of arch={module.arch!r}, but {len(wrong)} of them '
            f'do not fit, such as: {"; ".join(wrong[:3])}')
    for key in own_keys:
        del state_dict[key]
    state_dict.update({prefix + name: value for name, value in renamed.items()})


def _differences(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> List[str]:
    wrong = [f'{name} is missing' for name in wanted if name not in weights]
    wrong += [f'{name} is unknown' for name in weights if name not in wanted]
    wrong += [
        f'{name} is {tuple(weights[name].shape)} instead of {tuple(value.shape)}'
        for name, value in wanted.items() if name in weights and weights[name].shape != value.shape
    ]
    return wrong
