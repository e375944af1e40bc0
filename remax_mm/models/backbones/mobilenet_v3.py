"""MobileNetV3 as a pixel encoder: the features are the depthwise outputs inside the blocks.

Howard et al., Searching for MobileNetV3 (arXiv 1905.02244). Which tensors are the features follows
google-research/deeplab2, model/encoder/mobilenet.py; the parameter counts in Table 12 of the ReMaX paper
(arXiv 2306.17319) only fit these.
"""
import warnings
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple, Union

from mmcv.cnn import ConvModule
from mmdet.models.layers import InvertedResidual
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from mmseg.models.utils import SELayer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers.conv_norm_act import KMAX_NORM, NormConfig

NUM_TAPS = 5
STEM_CHANNELS = 16
GATES = dict(sigmoid='Sigmoid', hard_sigmoid=nn.Hardsigmoid)


class BlockSpec(NamedTuple):
    """One inverted bottleneck; ``squeeze`` is for squeeze-and-excitation."""
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
"""Tables 2 and 1 of the paper up to the last 1x1 convolution, which has 6 times the last width."""


def torchvision_names(arch: str) -> Dict[str, str]:
    """Layers of torchvision's ``mobilenet_v3_small`` / ``_large`` -> layers here.

    torchvision numbers the parts of a block in the order of its forward and leaves out those it has not.
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
    """Weights of torchvision's MobileNetV3 under our names, without its classifier.

    Raises:
        ValueError: a key is none of torchvision's ``mobilenet_v3_<arch>``.
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


class TappedInvertedResidual(InvertedResidual):
    """Inverted bottleneck that also returns its depthwise output, before squeeze-and-excitation."""

    def __init__(self, in_channels: int, spec: BlockSpec, gate: str, norm_cfg: NormConfig,
                 drop_path_rate: float) -> None:
        super().__init__(
            in_channels,
            spec.out,
            spec.expanded,
            spec.kernel_size,
            spec.stride,
            with_expand_conv=spec.expanded != in_channels,
            norm_cfg=norm_cfg,
            act_cfg=dict(type=spec.act),
            drop_path_rate=drop_path_rate)
        # mmseg's layer rounds the reduced width to a multiple of 8 as MobileNetV3 does, mmdet's does not.
        acts = (dict(type='ReLU'), dict(type=GATES[gate]))
        self.se = SELayer(spec.expanded, ratio=4, act_cfg=acts) if spec.squeeze else nn.Identity()

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Depthwise output (B, expanded, h', w') and block output (B, out, h', w') of ``x`` (B, C, h, w)."""
        expanded = self.expand_conv(x) if self.with_expand_conv else x
        tap = self.depthwise_conv(expanded)

        out = self.linear_conv(self.se(tap))
        return tap, x + self.drop_path(out) if self.with_res_shortcut else out


@MODELS.register_module()
class KMaXMobileNetV3(BaseModule):
    """MobileNetV3 without its classifier, giving features at strides 2, 4, 8, 16 and 32.

    The feature of a stride is the depthwise output of the last block at that stride, after norm and
    activation, before squeeze-and-excitation and projection. At stride 2 ``'small'`` has no block and gives
    the stem's output; at stride 32 the feature is the output of the last 1x1 convolution.

    ImageNet weights come with ``init_cfg=dict(type='Pretrained', checkpoint=...)`` from torchvision's
    ``torchvision://mobilenet_v3_small`` or ``_large``, or from the same file on disk. They were trained with
    ``gate='hard_sigmoid'``.

    Args:
        arch: ``'small'`` or ``'large'``.
        out_indices: which features to return, 0 for stride 2 to 4 for stride 32.
        gate: of squeeze-and-excitation, ``'sigmoid'`` as in deeplab2 or ``'hard_sigmoid'`` as in torchvision.
        drop_path_rate: of the last block; grows linearly from 0 at the first.
        frozen_stages: -1 trains all, 0 freezes the stem, i >= 1 also all blocks up to those at stride 2**i,
            5 also the last convolution.
        norm_eval: keep batch norms at their running statistics while training.

    Raises:
        ValueError: an argument is outside its range.
    """

    def __init__(self,
                 arch: str,
                 out_indices: Sequence[int] = (1, 2, 3, 4),
                 gate: str = 'sigmoid',
                 norm_cfg: NormConfig = KMAX_NORM,
                 drop_path_rate: float = 0.0,
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 init_cfg: Optional[Union[dict, list]] = None) -> None:
        super().__init__(init_cfg)
        _check_one_of('arch', arch, tuple(ARCHITECTURES))
        _check_one_of('gate', gate, tuple(GATES))
        _check_one_of('frozen_stages', frozen_stages, tuple(range(-1, NUM_TAPS + 1)))
        for index in out_indices:
            _check_one_of('out_indices', index, tuple(range(NUM_TAPS)))
        self.arch = arch
        self.gate = gate
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

        specs = ARCHITECTURES[arch]
        act = dict(type='HSwish')
        self.stem = ConvModule(3, STEM_CHANNELS, 3, 2, 1, norm_cfg=norm_cfg, act_cfg=act)

        rates = [drop_path_rate * i / (len(specs) - 1) for i in range(len(specs))]
        widths = [STEM_CHANNELS] + [spec.out for spec in specs]
        self.blocks = nn.ModuleList(
            TappedInvertedResidual(width, spec, gate, norm_cfg, rate)
            for width, spec, rate in zip(widths, specs, rates))
        self.last_conv = ConvModule(widths[-1], 6 * widths[-1], 1, norm_cfg=norm_cfg, act_cfg=act)

        self._register_load_state_dict_pre_hook(_accept_torchvision_weights, with_module=True)
        self._freeze_stages()

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, 3, H, W) -> one (B, C, h, w) for each of ``out_indices``, h = (H - 1) // stride + 1."""
        x = tap = self.stem(x)
        taps = []
        for block, spec in zip(self.blocks, ARCHITECTURES[self.arch]):
            # The next stride begins here, so what came last is the feature of the stride before.
            if spec.stride == 2:
                taps.append(tap)
            tap, x = block(x)

        taps.append(self.last_conv(x))
        return tuple(taps[index] for index in self.out_indices)

    def train(self, mode: bool = True) -> 'KMaXMobileNetV3':
        """Switch the mode; frozen stages and, with ``norm_eval``, batch norms stay in evaluation mode."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze_stages(self) -> None:
        frozen = [self.stem] if self.frozen_stages >= 0 else []
        level = 1
        for block, spec in zip(self.blocks, ARCHITECTURES[self.arch]):
            level += spec.stride == 2
            if level <= self.frozen_stages:
                frozen.append(block)
        if self.frozen_stages == NUM_TAPS:
            frozen.append(self.last_conv)
        for module in frozen:
            module.eval()
            module.requires_grad_(False)


def _check_one_of(name: str, value: Any, choices: Tuple[Any, ...]) -> None:
    if value not in choices:
        raise ValueError(f'Expected `{name}` of KMaXMobileNetV3 to be one of {choices}, but got {value!r}')


def _accept_torchvision_weights(module: nn.Module, state_dict: Dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename, in place, weights of torchvision's network that ``state_dict`` holds under ``prefix``."""
    if f'{prefix}features.0.0.weight' not in state_dict:
        return
    if module.gate != 'hard_sigmoid':
        warnings.warn("torchvision's MobileNetV3 weights were trained with gate='hard_sigmoid', but this "
                      f'KMaXMobileNetV3 has gate={module.gate!r}.')
    own_keys = [key for key in state_dict if key.startswith(prefix)]
    theirs = {key[len(prefix):]: state_dict.pop(key) for key in own_keys}
    for key, value in rename_torchvision_weights(theirs, module.arch).items():
        state_dict[prefix + key] = value
