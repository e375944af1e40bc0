"""MobileNetV3 as a backbone whose features are outputs of depthwise convolutions inside the blocks.

Howard et al., Searching for MobileNetV3 (arXiv 1905.02244). The choice of the features is that of
google-research/deeplab2, model/encoder/mobilenet.py. Only this choice gives the parameter counts in Table 12
of the ReMaX paper (arXiv 2306.17319).
"""
import warnings
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple, Union

from mmcv.cnn import ConvModule
from mmdet.models.layers import InvertedResidual
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from mmseg.models.utils import SELayer
from torch import Tensor, nn

from ..layers import KMAX_NORM, NormConfig, recompute

NUM_FEATURES = 5
STEM_CHANNELS = 16
GATES = dict(sigmoid='Sigmoid', hard_sigmoid=nn.Hardsigmoid)


class BlockSpec(NamedTuple):
    """One inverted bottleneck.

    Attributes:
        expanded, out: channels of the depthwise convolution and of the output.
        squeeze: whether the block has squeeze-and-excitation.
        act: type of the activation layer.
    """
    kernel_size: int
    expanded: int
    out: int
    squeeze: bool
    act: str
    stride: int


ARCHITECTURES: Dict[str, Tuple[BlockSpec, ...]] = dict(
    small=(
        BlockSpec(3, 16, 16, True, 'ReLU', 2),
        BlockSpec(3, 72, 24, False, 'ReLU', 2),
        BlockSpec(3, 88, 24, False, 'ReLU', 1),
        BlockSpec(5, 96, 40, True, 'HSwish', 2),
        BlockSpec(5, 240, 40, True, 'HSwish', 1),
        BlockSpec(5, 240, 40, True, 'HSwish', 1),
        BlockSpec(5, 120, 48, True, 'HSwish', 1),
        BlockSpec(5, 144, 48, True, 'HSwish', 1),
        BlockSpec(5, 288, 96, True, 'HSwish', 2),
        BlockSpec(5, 576, 96, True, 'HSwish', 1),
        BlockSpec(5, 576, 96, True, 'HSwish', 1),
    ),
    large=(
        BlockSpec(3, 16, 16, False, 'ReLU', 1),
        BlockSpec(3, 64, 24, False, 'ReLU', 2),
        BlockSpec(3, 72, 24, False, 'ReLU', 1),
        BlockSpec(5, 72, 40, True, 'ReLU', 2),
        BlockSpec(5, 120, 40, True, 'ReLU', 1),
        BlockSpec(5, 120, 40, True, 'ReLU', 1),
        BlockSpec(3, 240, 80, False, 'HSwish', 2),
        BlockSpec(3, 200, 80, False, 'HSwish', 1),
        BlockSpec(3, 184, 80, False, 'HSwish', 1),
        BlockSpec(3, 184, 80, False, 'HSwish', 1),
        BlockSpec(3, 480, 112, True, 'HSwish', 1),
        BlockSpec(3, 672, 112, True, 'HSwish', 1),
        BlockSpec(5, 672, 160, True, 'HSwish', 2),
        BlockSpec(5, 960, 160, True, 'HSwish', 1),
        BlockSpec(5, 960, 160, True, 'HSwish', 1),
    ))
"""Blocks in Tables 2 and 1 of the paper. A 1x1 convolution to 6 times as many channels follows them."""


def torchvision_names(arch: str) -> Dict[str, str]:
    """Map the layers of torchvision's ``mobilenet_v3_small`` or ``mobilenet_v3_large`` to the layers here.

    torchvision numbers the layers that a block has, in the order of its forward pass.
    """
    blocks = ARCHITECTURES[arch]
    names = {}

    def add_conv(theirs: str, ours: str) -> None:
        names[f'{theirs}.0'] = f'{ours}.conv'
        names[f'{theirs}.1'] = f'{ours}.bn'

    add_conv('features.0', 'stem')
    in_channels = STEM_CHANNELS
    for i, spec in enumerate(blocks):
        parts = ['expand_conv'] if spec.expanded != in_channels else []
        parts += ['depthwise_conv'] + (['se'] if spec.squeeze else []) + ['linear_conv']
        for j, part in enumerate(parts):
            theirs, ours = f'features.{i + 1}.block.{j}', f'blocks.{i}.{part}'
            if part == 'se':
                names[f'{theirs}.fc1'] = f'{ours}.conv1.conv'
                names[f'{theirs}.fc2'] = f'{ours}.conv2.conv'
            else:
                add_conv(theirs, ours)
        in_channels = spec.out
    add_conv(f'features.{len(blocks) + 1}', 'last_conv')
    return names


def rename_torchvision_weights(state_dict: Dict[str, Any], arch: str) -> Dict[str, Any]:
    """Rename the weights of torchvision's MobileNetV3 to the names here; the classifier is removed.

    Raises:
        ValueError: torchvision's ``mobilenet_v3_<arch>`` does not have one of the weights.
    """
    names = torchvision_names(arch)
    renamed = {}
    for key, value in state_dict.items():
        if key.startswith('classifier.'):
            continue
        module, _, parameter = key.rpartition('.')
        if module not in names:
            raise ValueError(f"Expected weights of torchvision's mobilenet_v3_{arch}, but got {key!r}, which "
                             'that network does not have; check `arch` and the checkpoint.')
        renamed[f'{names[module]}.{parameter}'] = value
    return renamed


class InvertedResidualWithFeature(InvertedResidual):
    """Inverted bottleneck that also returns the output of its depthwise convolution."""

    def __init__(self, in_channels: int, spec: BlockSpec, gate: str, norm_cfg: NormConfig) -> None:
        super().__init__(
            in_channels,
            spec.out,
            spec.expanded,
            spec.kernel_size,
            spec.stride,
            with_expand_conv=spec.expanded != in_channels,
            norm_cfg=norm_cfg,
            act_cfg=dict(type=spec.act))
        # mmseg's SELayer rounds the reduced channels to a multiple of 8 like MobileNetV3; mmdet's does not.
        acts = (dict(type='ReLU'), dict(type=GATES[gate]))
        self.se = SELayer(spec.expanded, ratio=4, act_cfg=acts) if spec.squeeze else nn.Identity()

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """(B, C, h, w) -> feature (B, expanded, h', w') and output (B, out, h', w').

        The feature is the output of the depthwise convolution, before squeeze-and-excitation.
        """
        expanded = self.expand_conv(x) if self.with_expand_conv else x
        feature = self.depthwise_conv(expanded)

        out = self.linear_conv(self.se(feature))
        return feature, x + out if self.with_res_shortcut else out


@MODELS.register_module()
class KMaXMobileNetV3(BaseModule):
    """MobileNetV3 without classifier. Returns features at strides 2, 4, 8, 16 and 32.

    The feature of a stride is the output of the depthwise convolution in the last block with that stride,
    after norm and activation, before squeeze-and-excitation and projection. There are two exceptions: at
    stride 2 ``'small'`` has no block, and its feature is the output of the stem; at stride 32 the feature is
    the output of the last 1x1 convolution.

    ``init_cfg=dict(type='Pretrained', checkpoint=...)`` loads ImageNet weights in the format of torchvision,
    for example ``torchvision://mobilenet_v3_small``. They were trained with ``gate='hard_sigmoid'``.

    Args:
        arch: ``'small'`` or ``'large'``.
        out_indices: indices of the returned features, from 0 for stride 2 to 4 for stride 32.
        gate: activation of squeeze-and-excitation, ``'sigmoid'`` as in deeplab2 or ``'hard_sigmoid'`` as in
            torchvision.
        with_cp: whether training keeps the inputs of the blocks alone and computes everything inside them
            again in the backward pass, which takes less memory and more time.

    Raises:
        ValueError: unknown ``arch`` or ``gate``, or an index outside of 0 to 4.
    """

    def __init__(self,
                 arch: str,
                 out_indices: Sequence[int] = (1, 2, 3, 4),
                 gate: str = 'sigmoid',
                 norm_cfg: NormConfig = KMAX_NORM,
                 with_cp: bool = False,
                 init_cfg: Optional[Union[dict, list]] = None) -> None:
        super().__init__(init_cfg)
        _check_one_of('arch', arch, tuple(ARCHITECTURES))
        _check_one_of('gate', gate, tuple(GATES))
        for index in out_indices:
            _check_one_of('out_indices', index, tuple(range(NUM_FEATURES)))
        self.arch = arch
        self.gate = gate
        self.with_cp = with_cp
        self.out_indices = tuple(out_indices)

        specs = ARCHITECTURES[arch]
        act = dict(type='HSwish')
        self.stem = ConvModule(3, STEM_CHANNELS, 3, 2, 1, norm_cfg=norm_cfg, act_cfg=act)

        widths = [STEM_CHANNELS] + [spec.out for spec in specs]
        self.blocks = nn.ModuleList(
            InvertedResidualWithFeature(width, spec, gate, norm_cfg) for width, spec in zip(widths, specs))
        self.last_conv = ConvModule(widths[-1], 6 * widths[-1], 1, norm_cfg=norm_cfg, act_cfg=act)

        # In place, it has to keep a copy of its input for the backward pass.
        for module in self.modules():
            if isinstance(module, nn.Hardswish):
                module.inplace = False

        self._register_load_state_dict_pre_hook(_rename_torchvision_weights, with_module=True)

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, 3, H, W) -> (B, C, h, w) for each of ``out_indices``, with h = (H - 1) // stride + 1."""
        x = feature = self.stem(x)
        features = []
        for block, spec in zip(self.blocks, ARCHITECTURES[self.arch]):
            if spec.stride == 2:
                features.append(feature)  # the last one before the stride increases
            feature, x = recompute(block, x, module=block) if self.with_cp else block(x)

        features.append(self.last_conv(x))
        return tuple(features[index] for index in self.out_indices)


def _check_one_of(name: str, value: Any, choices: Tuple[Any, ...]) -> None:
    if value not in choices:
        raise ValueError(f'Expected `{name}` of KMaXMobileNetV3 to be one of {choices}, but got {value!r}.')


def _rename_torchvision_weights(model: KMaXMobileNetV3, state_dict: Dict[str, Any], prefix: str, *_:
                                Any) -> None:
    """Rename weights of torchvision's MobileNetV3 under ``prefix`` of ``state_dict``, in place."""
    if f'{prefix}features.0.0.weight' not in state_dict:
        return
    if model.gate != 'hard_sigmoid':
        warnings.warn("torchvision's MobileNetV3 weights were trained with gate='hard_sigmoid', but this "
                      f'KMaXMobileNetV3 has gate={model.gate!r}.')
    own_keys = [key for key in state_dict if key.startswith(prefix)]
    theirs = {key[len(prefix):]: state_dict.pop(key) for key in own_keys}
    for key, value in rename_torchvision_weights(theirs, model.arch).items():
        state_dict[prefix + key] = value
