"""The backbone of MaX-DeepLab: a pixel path and a memory path that read from each other.

Wang et al., MaX-DeepLab (arXiv 2012.00759); google-research/deeplab2, model/encoder/axial_resnet.py and
axial_resnet_instances.py, model/layers/axial_block_groups.py and resized_fuse.py.
"""
from typing import Dict, Iterator, List, Optional, Sequence, Tuple, Union

import torch
from mmcv.cnn import build_activation_layer
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from remax_mm.structures import DualPathFeatures
from ..layers import (EXPANSION, KMAX_NORM, MAX_ACT, ActConfig, AxialBlock, BasicBlock, BottleneckBlock,
                      ConvNormAct, DualPathLayer, NormConfig, resize_to, truncated_normal_)
from .axial_resnet import ATTENTION_STRIDE, build_stem, drop_path_rate_at

CONV_BLOCKS = dict(basic=BasicBlock, bottleneck=BottleneckBlock)
COARSEST, FINEST = 16, 4
"""Strides between which the decoder goes."""
STAGE_STRIDES = (2, 2, 4, 8, 16)
"""Of the inputs of five stages, or of the last four."""
LAST_STRIDE = 32
"""What stride 16 counts as after the last stage, which halves the size in other residual networks."""

Made = Dict[int, List[Tensor]]
"""Features by stride, the latest last."""


class BlockGroup(nn.Sequential):
    """Blocks in a row.

    Args:
        dual_path: a dual-path layer follows each of them.
    """

    def __init__(self, *blocks: nn.Module, dual_path: bool) -> None:
        super().__init__(*blocks)
        self.dual_path = dual_path


class StackedFusion(nn.Module):
    """Bring a feature to another stride and add what the network made there before.

    Args:
        halves: the new stride is the double, not the half.
    """

    def __init__(self, in_channels: int, out_channels: int, halves: bool, norm_cfg: NormConfig,
                 act_cfg: ActConfig) -> None:
        super().__init__()
        if in_channels == out_channels:
            self.project = nn.Identity()
        else:
            project = ConvNormAct(
                in_channels, out_channels, stride=2 if halves else 1, norm_cfg=norm_cfg, act=False)
            self.project = nn.Sequential(build_activation_layer(act_cfg), project)

    def forward(self, x: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """(B, in_channels, h', w') and features (B, out_channels, h, w) to their sum, not activated."""
        return resize_to(self.project(x), earlier[-1].shape[-2:]) + sum(earlier)


class DecoderStep(nn.Module):
    """A fusion at ``stride``, and the blocks after it."""

    def __init__(self, stride: int, fuse: StackedFusion, blocks: BlockGroup) -> None:
        super().__init__()
        self.stride = stride
        self.fuse = fuse
        self.blocks = blocks


@MODELS.register_module()
class DualPathAxialResNet(BaseModule):
    """Encoder, memory and stacked decoder of MaX-DeepLab, by default those of MaX-DeepLab-S.

    Stem and stages are pretrained on ImageNet, in MaX-DeepLab-L with a first decoder (``inner_decoder``); no
    weights in PyTorch's format are public. Stem and stages of S have the names and shapes of
    :class:`AxialResNet`, so that a checkpoint of that loads.

    Args:
        num_blocks, channels: blocks and base channels of each stage, which returns 4 times as many. Four
            stages at strides 4, 8, 16 and 16, or five with one at stride 2 before them.
        stem_channels: of the 3x3 convolutions of the stem, the first of stride 2, the last not activated.
        conv_block: ``'bottleneck'`` or ``'basic'``, wherever there is no axial attention.
        attention_expansion: see :class:`AxialBlock`.
        dual_path_stride: 32 for dual-path layers in the last stage and in what follows at stride 16, 16 for
            the stage before as well.
        dual_path_channels: width of a layer in the last stage; in the one before half of it.
        ffn_channels: of each layer.
        memory_channels, num_slots: of the memory; N.
        inner_decoder_strides: path of the decoder that is pretrained, one block at each stride.
        decoder_strides: path of the decoder after it, ending at stride 4.
        decoder_blocks: at each stride of that decoder, and before it at stride 16.
        num_heads: of axial attention and dual-path layers.
        drop_path_rate: of blocks and layers at the end, less before, see :func:`drop_path_rate_at`.
        drop_path_stride: no path is dropped before.

    Raises:
        ValueError: an argument is outside its range.
    """

    def __init__(self,
                 num_blocks: Sequence[int] = (3, 4, 6, 3),
                 channels: Sequence[int] = (64, 128, 256, 512),
                 stem_channels: Sequence[int] = (64, 64, 128),
                 conv_block: str = 'bottleneck',
                 attention_expansion: int = 2,
                 dual_path_stride: int = 32,
                 dual_path_channels: int = 256,
                 ffn_channels: int = 2048,
                 memory_channels: int = 256,
                 num_slots: int = 128,
                 inner_decoder_strides: Sequence[int] = (),
                 decoder_strides: Sequence[int] = (8, 4),
                 decoder_blocks: int = 1,
                 num_heads: int = 8,
                 drop_path_rate: float = 0.0,
                 drop_path_stride: int = 16,
                 norm_cfg: NormConfig = KMAX_NORM,
                 act_cfg: ActConfig = MAX_ACT,
                 init_cfg: Optional[Union[dict, list]] = None) -> None:
        super().__init__(init_cfg)
        _check_stages(num_blocks, channels, conv_block)
        _check_path(inner_decoder_strides, decoder_strides)
        self.block_options = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.axial_options = dict(
            num_heads=num_heads, attention_expansion=attention_expansion, **self.block_options)
        self.layer_options = dict(
            memory_channels=memory_channels,
            ffn_channels=ffn_channels,
            num_heads=num_heads,
            **self.block_options)
        self.conv_block = CONV_BLOCKS[conv_block]
        self.dual_path_stride = dual_path_stride
        self.dual_path_ratio = dual_path_channels / channels[-1]
        self.drop_path_options = (drop_path_rate, drop_path_stride)
        self.act = build_activation_layer(act_cfg)

        # Pixel path: what is pretrained, the first blocks that are not, and the decoder.
        self.stem = build_stem(stem_channels, **self.block_options)
        self.dual_path_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        width = stem_channels[-1]
        for depth, base, stride in zip(num_blocks, channels, STAGE_STRIDES[-len(channels):]):
            advances = len(channels) - len(self.stages) <= 4  # a fifth stage before the four stays at 2
            self.stages.append(self._build_group(width, base, depth, stride, advances))
            width = EXPANSION * base
        bases = {4: channels[-4], 8: channels[-3], 16: channels[-1]}
        self.inner_decoder = self._build_decoder(inner_decoder_strides, bases, 1)
        self.extra = self._build_group(width, channels[-1], decoder_blocks, LAST_STRIDE)
        self.decoder = self._build_decoder(decoder_strides, bases, decoder_blocks)

        # Memory path
        self.memory = nn.Parameter(torch.empty(memory_channels, num_slots))
        truncated_normal_(self.memory, std=1.0)
        self.class_embedding = ConvNormAct(memory_channels, memory_channels, dim=1, **self.block_options)
        self.mask_embedding = ConvNormAct(memory_channels, memory_channels, dim=1, **self.block_options)

    def forward(self, image: Tensor) -> DualPathFeatures:
        """From the normalised image (B, 3, H, W), H and W best 32k + 1."""
        memory = self.memory.expand(image.shape[0], -1, -1)
        layers = iter(self.dual_path_layers)

        # The stages; of those at stride 16 only the last one's feature is used again.
        x = self.stem(image)
        outputs = []
        for stage in self.stages:
            x, memory = _run(stage, x, memory, layers)
            outputs.append(x)
        res2, res3, res4, res5 = outputs[-4:]
        made = {4: [res2], 8: [res3], 16: [res5]}

        # The decoder that is pretrained with them, if any
        x, memory = self._decode(self.inner_decoder, x, memory, made, layers)
        encoded = x

        # From here on everything starts from scratch.
        x, memory = _run(self.extra, x, memory, layers)
        made[COARSEST][-1] = x
        num_fine = len(made[FINEST])
        x, memory = self._decode(self.decoder, x, memory, made, layers)

        # The auxiliary semantic head gets no feature that the masks are made on.
        fine = made[FINEST][num_fine:]
        semantic = fine[-2] if len(fine) > 1 else encoded
        return DualPathFeatures(
            panoptic=self.act(fine[-1]),
            semantic=tuple(self.act(feature) for feature in (res2, res3, res4, semantic)),
            class_embedding=self.class_embedding(memory),
            mask_embedding=self.mask_embedding(memory))

    @staticmethod
    def _decode(steps: nn.ModuleList, x: Tensor, memory: Tensor, made: Made,
                layers: Iterator[nn.Module]) -> Tuple[Tensor, Tensor]:
        """Go through a decoder; each step adds its feature to ``made``."""
        for step in steps:
            # The last two at this stride are one from the way down and one from the way up.
            x = step.fuse(x, made[step.stride][-2:])
            x, memory = _run(step.blocks, x, memory, layers)
            made[step.stride].append(x)
        return x, memory

    def _build_group(self,
                     in_channels: int,
                     base: int,
                     depth: int,
                     stride: int,
                     advances: bool = False) -> BlockGroup:
        """Blocks from ``stride`` on; those of a stage advance to the next, which halves the size up to 16.

        Makes the dual-path layers of the group as well.
        """
        width, after = EXPANSION * base, stride * (1 + advances)
        dual_path = after >= self.dual_path_stride
        blocks = []
        for index in range(depth):
            # The first block of a stage still belongs to the stride before.
            before = stride if index == 0 else after
            rate = drop_path_rate_at(before, *self.drop_path_options)
            axial = before >= ATTENTION_STRIDE
            blocks.append((AxialBlock if axial else self.conv_block)(
                in_channels if index == 0 else width,
                base,
                drop_path_rate=rate,
                stride=2 if before < after <= COARSEST else 1,
                **(self.axial_options if axial else self.block_options)))
            if dual_path:
                self.dual_path_layers.append(
                    DualPathLayer(
                        width,
                        channels=round(base * self.dual_path_ratio),
                        drop_path_rate=rate,
                        **self.layer_options))
        return BlockGroup(*blocks, dual_path=dual_path)

    def _build_decoder(self, strides: Sequence[int], bases: Dict[int, int], depth: int) -> nn.ModuleList:
        steps, previous = nn.ModuleList(), COARSEST
        for stride in strides:
            width = EXPANSION * bases[stride]
            fuse = StackedFusion(EXPANSION * bases[previous], width, stride > previous, **self.block_options)
            counted = LAST_STRIDE if stride == COARSEST else stride
            steps.append(DecoderStep(stride, fuse, self._build_group(width, bases[stride], depth, counted)))
            previous = stride
        return steps


def _run(group: BlockGroup, x: Tensor, memory: Tensor, layers: Iterator[nn.Module]) -> Tuple[Tensor, Tensor]:
    """Each block of a group, and the next one of ``layers`` after it where the group has some."""
    for block in group:
        x = block(x)
        if group.dual_path:
            x, memory = next(layers)(x, memory)
    return x, memory


def _check_stages(num_blocks: Sequence[int], channels: Sequence[int], conv_block: str) -> None:
    if len(num_blocks) != len(channels) or len(channels) not in (4, 5) or min(num_blocks) < 1:
        raise ValueError(
            'Expected `num_blocks` and `channels` of DualPathAxialResNet for 4 or 5 stages of at '
            f'least one block, but got {tuple(num_blocks)} and {tuple(channels)}.')
    if conv_block not in CONV_BLOCKS:
        raise ValueError(f'Expected `conv_block` among {sorted(CONV_BLOCKS)}, but got {conv_block!r}.')


def _check_path(inner: Sequence[int], outer: Sequence[int]) -> None:
    """Strides double or halve from step to step, from 16 to 16 for the first decoder, to 4 for the second."""
    for name, path, end in (('inner_decoder_strides', inner, COARSEST), ('decoder_strides', outer, FINEST)):
        whole = (COARSEST, *path)
        steps = [max(a, b) / min(a, b) for a, b in zip(whole, whole[1:])]
        if whole[-1] != end or any(step != 2 for step in steps) or not set(whole) <= {4, 8, 16}:
            raise ValueError(
                f'Expected `{name}` of DualPathAxialResNet to go by factors of 2 from {COARSEST} to '
                f'{end}, between {FINEST} and {COARSEST}, but got {tuple(path)}.')
