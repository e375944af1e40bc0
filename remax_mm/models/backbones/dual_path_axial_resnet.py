"""The backbone of MaX-DeepLab: a pixel path and a memory path that attend to each other.

Wang et al., MaX-DeepLab (arXiv 2012.00759); google-research/deeplab2, model/encoder/axial_resnet.py and
axial_resnet_instances.py, model/layers/axial_block_groups.py and resized_fuse.py.
"""
from functools import partial
from itertools import zip_longest
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

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
LAST_STAGE = 5
"""Stage n of a ResNet has stride 2**n. Here stage 5 is the exception: it keeps stride 16, not 32."""
DECODER_STAGES = {4: 2, 8: 3, 16: LAST_STAGE}
"""Stage with the channels and the type of block that a decoder has at each of its strides."""

Features = Dict[int, List[Tensor]]
"""Pixel features (B, C, h, w), not activated, by stride, the latest last."""


class BlockGroup(nn.ModuleList):
    """Residual blocks in sequence, either each paired with a dual-path layer after it or none.

    Args:
        dual_path_layers: one for each block, or empty.
    """

    def __init__(self, blocks: Sequence[nn.Module], dual_path_layers: Sequence[DualPathLayer] = ()) -> None:
        super().__init__(blocks)
        # A tuple does not register the layers here. The backbone registers them outside of `stages`: ImageNet
        # pretrains the blocks but no layers, and configs choose learning rates by the start of a name.
        self.dual_path_layers = tuple(dual_path_layers)

    def forward(self, pixel: Tensor, memory: Tensor) -> Tuple[Tensor, Tensor]:
        """(B, C, h, w) and (B, C', N) to (B, C'', h', w') and (B, C', N); pixels are not activated."""
        for block, layer in zip_longest(self, self.dual_path_layers):
            pixel = block(pixel)
            if layer is not None:
                pixel, memory = layer(pixel, memory)
        return pixel, memory


class StackedFusion(nn.Module):
    """Project and resize a feature, then add earlier features that have the new size.

    Args:
        downsample: the new stride is twice the old one, not half of it.
    """

    def __init__(self, in_channels: int, out_channels: int, downsample: bool, norm_cfg: NormConfig,
                 act_cfg: ActConfig) -> None:
        super().__init__()
        self.project = nn.Sequential()
        if in_channels != out_channels:
            project = ConvNormAct(
                in_channels, out_channels, stride=2 if downsample else 1, norm_cfg=norm_cfg, act=False)
            self.project.extend([build_activation_layer(act_cfg), project])

    def forward(self, pixel: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """(B, in_channels, h', w') and features (B, out_channels, h, w) to their sum, not activated."""
        return resize_to(self.project(pixel), earlier[-1].shape[-2:]) + sum(earlier)


class DecoderStep(nn.Module):
    """Fusion with earlier features at ``stride``, then blocks."""

    def __init__(self, stride: int, fuse: StackedFusion, blocks: BlockGroup) -> None:
        super().__init__()
        self.stride = stride
        self.fuse = fuse
        self.blocks = blocks

    def forward(self, pixel: Tensor, memory: Tensor, features: Features) -> Tuple[Tensor, Tensor, Features]:
        """Both paths after the step, and ``features`` with the new pixels appended at ``stride``.

        ``pixel`` has twice or half this stride.
        """
        # Of the two latest features, one comes from downsampling and one from upsampling.
        earlier = features[self.stride]
        pixel, memory = self.blocks(self.fuse(pixel, earlier[-2:]), memory)
        return pixel, memory, {**features, self.stride: [*earlier, pixel]}


class BlockBuilder(NamedTuple):
    """Builds the blocks and dual-path layers of one backbone.

    Attributes:
        base_channels: of the blocks of each stage; a block returns 4 times as many.
        first_dual_path_stage: first stage with dual-path layers.
        dual_path_ratio: width of a layer divided by the base channels of its block.
        drop_path_rate: from the stride that a block's input has in a ResNet to the rate of block and layer.
        conv_block, axial_block, dual_path_layer, fusion: constructors of the modules.
    """
    base_channels: Mapping[int, int]
    first_dual_path_stage: int
    dual_path_ratio: float
    drop_path_rate: Callable[[int], float]
    conv_block: Callable[..., nn.Module]
    axial_block: Callable[..., nn.Module]
    dual_path_layer: Callable[..., DualPathLayer]
    fusion: Callable[..., StackedFusion]

    def stages(self, num_blocks: Sequence[int], stem_channels: int) -> nn.ModuleList:
        """Build all stages; the first one reads the stem, at stride 2."""
        stages, in_channels = nn.ModuleList(), stem_channels
        for (stage, base), depth in zip(self.base_channels.items(), num_blocks):
            input_stage = max(stage - 1, 1)  # The stem has the stride of stage 1.
            stages.append(self.group(in_channels, input_stage, stage, depth))
            in_channels = EXPANSION * base
        return stages

    def decoder(self, strides: Sequence[int], num_blocks: int) -> nn.ModuleList:
        """Build the steps from stride 16 through ``strides``, with ``num_blocks`` blocks at each."""
        steps, input_stage = nn.ModuleList(), LAST_STAGE
        for stride in strides:
            stage = DECODER_STAGES[stride]
            in_channels, channels = (EXPANSION * self.base_channels[i] for i in (input_stage, stage))
            fuse = self.fusion(in_channels, channels, downsample=stage > input_stage)
            steps.append(DecoderStep(stride, fuse, self.group(channels, stage, stage, num_blocks)))
            input_stage = stage
        return steps

    def group(self, in_channels: int, input_stage: int, stage: int, num_blocks: int) -> BlockGroup:
        """Build blocks of ``stage``; the first one reads ``in_channels`` of ``input_stage``."""
        base, blocks, layers = self.base_channels[stage], [], []
        for _ in range(num_blocks):
            resnet_stride = 2**input_stage  # 32 for input from stage 5, although it has stride 16
            rate = self.drop_path_rate(resnet_stride)
            block = self.axial_block if resnet_stride >= ATTENTION_STRIDE else self.conv_block
            stride = 2 if input_stage < stage < LAST_STAGE else 1
            blocks.append(block(in_channels, base, drop_path_rate=rate, stride=stride))

            # The layer and the next block read the output of this block.
            in_channels, input_stage = EXPANSION * base, stage
            if stage >= self.first_dual_path_stage:
                channels = round(base * self.dual_path_ratio)
                layers.append(self.dual_path_layer(in_channels, channels=channels, drop_path_rate=rate))
        return BlockGroup(blocks, layers)


@MODELS.register_module()
class DualPathAxialResNet(BaseModule):
    """Encoder, memory and stacked decoder of MaX-DeepLab, by default those of MaX-DeepLab-S.

    Stages 2 to 5 have strides 4, 8, 16 and 16. MaX-DeepLab-L has a stage 1 of stride 2 before them.

    Stem and stages are pretrained on ImageNet, in MaX-DeepLab-L together with a first decoder
    (``inner_decoder_strides``). No such weights are public in PyTorch's format. Stem and stages of S have the
    parameter names and shapes of :class:`AxialResNet`, so a checkpoint of it can be loaded.

    Args:
        num_blocks, channels: of each stage, four or five values; a stage returns 4 times its ``channels``.
        stem_channels: of the 3x3 convolutions of the stem. The first one has stride 2, the last one no
            activation.
        conv_block: ``'bottleneck'`` or ``'basic'``, the blocks without attention.
        attention_expansion: see :class:`AxialBlock`.
        first_dual_path_stage: this stage and the later ones have a dual-path layer after each block. Decoder
            blocks at strides 4, 8 and 16 count as stages 2, 3 and 5.
        dual_path_channels: width of the dual-path layers of stage 5. Those of other stages are narrower in
            proportion to ``channels``.
        ffn_channels: of the dual-path layers.
        memory_channels, num_slots: C' and N of the memory (C', N).
        inner_decoder_strides: of the pretrained decoder, which has one block at each; empty for none.
        decoder_strides: of the decoder after it, ending with 4.
        decoder_blocks: number of blocks at each of ``decoder_strides``, and at stride 16 before them.
        num_heads: of axial attention and dual-path layers.
        drop_path_rate: of the last blocks and layers, lower for earlier ones, see :func:`drop_path_rate_at`.
        drop_path_stride: only blocks whose input has this stride or a larger one drop paths.

    Raises:
        ValueError: an argument is outside its range.
    """

    def __init__(self,
                 num_blocks: Sequence[int] = (3, 4, 6, 3),
                 channels: Sequence[int] = (64, 128, 256, 512),
                 stem_channels: Sequence[int] = (64, 64, 128),
                 conv_block: str = 'bottleneck',
                 attention_expansion: int = 2,
                 first_dual_path_stage: int = 5,
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
        _check_stages(num_blocks, channels, conv_block, first_dual_path_stage)
        _check_decoders(inner_decoder_strides, decoder_strides)
        cfgs: dict = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        heads: dict = dict(num_heads=num_heads, **cfgs)
        builder = BlockBuilder(
            base_channels=dict(enumerate(channels, LAST_STAGE + 1 - len(channels))),
            first_dual_path_stage=first_dual_path_stage,
            dual_path_ratio=dual_path_channels / channels[-1],
            drop_path_rate=lambda stride: drop_path_rate_at(stride, drop_path_rate, drop_path_stride),
            conv_block=partial(CONV_BLOCKS[conv_block], **cfgs),
            axial_block=partial(AxialBlock, attention_expansion=attention_expansion, **heads),
            dual_path_layer=partial(
                DualPathLayer, memory_channels=memory_channels, ffn_channels=ffn_channels, **heads),
            fusion=partial(StackedFusion, **cfgs))

        # Pixel path: what is pretrained, up to the inner decoder, then what is not.
        self.act = build_activation_layer(act_cfg)
        self.stem = build_stem(stem_channels, **cfgs)
        self.dual_path_layers = nn.ModuleList()  # here for the order of parameters, filled below
        self.stages = builder.stages(num_blocks, stem_channels[-1])
        self.inner_decoder = builder.decoder(inner_decoder_strides, 1)
        self.stage5_extra = builder.group(EXPANSION * channels[-1], LAST_STAGE, LAST_STAGE, decoder_blocks)
        self.decoder = builder.decoder(decoder_strides, decoder_blocks)
        groups = [module for module in self.modules() if isinstance(module, BlockGroup)]
        self.dual_path_layers.extend(layer for group in groups for layer in group.dual_path_layers)

        # Memory path
        self.memory = nn.Parameter(torch.empty(memory_channels, num_slots))
        truncated_normal_(self.memory, std=1.0)
        self.class_embedding = ConvNormAct(memory_channels, memory_channels, dim=1, **cfgs)
        self.mask_embedding = ConvNormAct(memory_channels, memory_channels, dim=1, **cfgs)

    def forward(self, image: Tensor) -> DualPathFeatures:
        """From the normalized image (B, 3, H, W); H and W are best 32k + 1."""
        memory = self.memory.expand(image.shape[0], -1, -1)

        # Stages; the decoders do not read stage 4, which has the stride of stage 5.
        pixel = self.stem(image)
        outputs = []
        for stage in self.stages:
            pixel, memory = stage(pixel, memory)
            outputs.append(pixel)
        res2, res3, res4, res5 = outputs[-4:]
        features = {4: [res2], 8: [res3], 16: [res5]}

        # Pretrained decoder, if any
        for step in self.inner_decoder:
            pixel, memory, features = step(pixel, memory, features)
        pretrained = pixel

        # Blocks that are not pretrained, whose feature replaces the one before them, and the decoder
        pixel, memory = self.stage5_extra(pixel, memory)
        features[16][-1] = pixel
        for step in self.decoder:
            pixel, memory, features = step(pixel, memory, features)

        # Masks use the last feature at stride 4. The auxiliary semantic head gets the decoder's previous one
        # if there are two, as in MaX-DeepLab-L.
        has_two = sum(step.stride == 4 for step in self.decoder) > 1
        semantic = features[4][-2] if has_two else pretrained
        return DualPathFeatures(
            panoptic=self.act(pixel),
            semantic=tuple(self.act(feature) for feature in (res2, res3, res4, semantic)),
            class_embedding=self.class_embedding(memory),
            mask_embedding=self.mask_embedding(memory))


def _check_stages(num_blocks: Sequence[int], channels: Sequence[int], conv_block: str,
                  first_dual_path_stage: int) -> None:
    if len(num_blocks) != len(channels) or len(channels) not in (4, 5) or min(num_blocks) < 1:
        raise ValueError(
            'Expected `num_blocks` and `channels` of DualPathAxialResNet for 4 or 5 stages of at '
            f'least one block, but got {tuple(num_blocks)} and {tuple(channels)}.')
    if conv_block not in CONV_BLOCKS:
        raise ValueError(f'Expected `conv_block` among {sorted(CONV_BLOCKS)}, but got {conv_block!r}.')
    if first_dual_path_stage > LAST_STAGE:
        raise ValueError('Expected `first_dual_path_stage` of DualPathAxialResNet to be at most '
                         f'{LAST_STAGE}, but got {first_dual_path_stage}.')


def _check_decoders(inner_strides: Sequence[int], strides: Sequence[int]) -> None:
    """The stride doubles or halves at each step, from 16 to 16 in the first decoder, to 4 in the second."""
    for name, path, end in (('inner_decoder_strides', inner_strides, 16), ('decoder_strides', strides, 4)):
        path = (16, *path)
        by_two = all(max(pair) == 2 * min(pair) for pair in zip(path, path[1:]))
        if path[-1] != end or not by_two or not set(path) <= set(DECODER_STAGES):
            raise ValueError(f'Expected `{name}` of DualPathAxialResNet to go by factors of 2 from 16 to '
                             f'{end}, between 4 and 16, but got {path[1:]}.')
