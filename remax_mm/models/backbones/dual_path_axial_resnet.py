"""The backbone of MaX-DeepLab: a pixel path and a memory path that attend to each other.

Wang et al., MaX-DeepLab (arXiv 2012.00759); google-research/deeplab2, model/encoder/axial_resnet.py and
axial_resnet_instances.py, model/layers/axial_block_groups.py and resized_fuse.py.
"""
from functools import partial
from itertools import zip_longest
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from mmcv.cnn import build_activation_layer
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from remax_mm.structures import DualPathFeatures
from ..layers import (EXPANSION, KMAX_NORM, MAX_ACT, ActConfig, AxialBlock, BasicBlock, BottleneckBlock,
                      ConvNormAct, DualPathLayer, NormConfig, build_projection, recompute, resize_to,
                      truncated_normal_)
from .axial_resnet import ATTENTION_STRIDE, build_stem, check_stages, drop_path_rate_at

CONV_BLOCKS = dict(basic=BasicBlock, bottleneck=BottleneckBlock)
LAST_STAGE = 5
"""Stage n has stride 2**n as in a ResNet, with one exception: stage 5 has stride 16, not 32."""
DECODER_STAGES = {4: 2, 8: 3, 16: LAST_STAGE}
"""For each stride of a decoder, the stage with the same channels and block type."""

Features = Dict[int, List[Tensor]]
"""For each stride, the pixel features (B, C, h, w) so far, not activated, latest last."""


class BlockGroup(nn.ModuleList):
    """A sequence of residual blocks, each followed by its dual-path layer if there are such layers.

    Args:
        dual_path_layers: one for each block, or none.
        with_cp: whether training keeps the inputs of blocks and layers alone.
    """

    def __init__(self,
                 blocks: Sequence[nn.Module],
                 dual_path_layers: Sequence[DualPathLayer] = (),
                 with_cp: bool = False) -> None:
        super().__init__(blocks)
        # A tuple does not register the layers. The backbone registers them outside of `stages`, which are
        # pretrained on ImageNet, because configs set learning rates by name prefix.
        self.dual_path_layers = tuple(dual_path_layers)
        self.with_cp = with_cp

    def forward(self, pixel: Tensor, memory: Tensor) -> Tuple[Tensor, Tensor]:
        """Pixels (B, C, h, w), not activated, and memory (B, C', N) -> the same with new C, h and w."""
        for block, layer in zip_longest(self, self.dual_path_layers):
            pixel = self._run(block, pixel)
            if layer is not None:
                pixel, memory = self._run(layer, pixel, memory)
        return pixel, memory

    def _run(self, module: nn.Module, *inputs: Tensor) -> Any:
        return recompute(module, *inputs, module=module) if self.with_cp else module(*inputs)


class StackedFusion(nn.Module):
    """Project and resize a feature, then add earlier features of the new size.

    Args:
        stride: of the projection; 2 if the feature is downsampled.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm_cfg: NormConfig,
                 act_cfg: ActConfig) -> None:
        super().__init__()
        self.project = build_projection(in_channels, out_channels, stride, norm_cfg, act_cfg)

    def forward(self, pixel: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """(B, in_channels, h', w') and features (B, out_channels, h, w) -> (B, out_channels, h, w)."""
        return resize_to(self.project(pixel), earlier[-1].shape[-2:]) + sum(earlier)


class DecoderStep(nn.Module):
    """Fusion with the latest features at ``stride``, at most two, then blocks."""

    def __init__(self, stride: int, fuse: StackedFusion, blocks: BlockGroup) -> None:
        super().__init__()
        self.stride = stride
        self.fuse = fuse
        self.blocks = blocks

    def forward(self, pixel: Tensor, memory: Tensor, features: Features) -> Tuple[Tensor, Tensor, Features]:
        """Return both paths after the step, and ``features`` with the new pixel feature added."""
        earlier = features[self.stride]
        pixel, memory = self.blocks(self.fuse(pixel, earlier[-2:]), memory)
        return pixel, memory, {**features, self.stride: [*earlier, pixel]}


class BlockBuilder(NamedTuple):
    """Builds the block groups of a backbone.

    Attributes:
        base_channels: for each stage, the base channels of its blocks.
        dual_path_channels: for each stage with dual-path layers, their width.
        drop_path_rate: function from the stride of a block's input to the rate of the block and its layer.
        conv_block, axial_block, dual_path_layer, fusion: constructors of the modules.
        with_cp: see :class:`BlockGroup`.
    """
    base_channels: Mapping[int, int]
    dual_path_channels: Mapping[int, int]
    drop_path_rate: Callable[[int], float]
    conv_block: Callable[..., nn.Module]
    axial_block: Callable[..., nn.Module]
    dual_path_layer: Callable[..., DualPathLayer]
    fusion: Callable[..., StackedFusion]
    with_cp: bool

    def stages(self, num_blocks: Sequence[int], stem_channels: int) -> nn.ModuleList:
        """Build all stages."""
        stages, in_channels = nn.ModuleList(), stem_channels
        for (stage, base), depth in zip(self.base_channels.items(), num_blocks):
            input_stage = max(stage - 1, 1)  # The stem has the stride of stage 1.
            stages.append(self.group(in_channels, input_stage, stage, depth))
            in_channels = EXPANSION * base
        return stages

    def decoder(self, strides: Sequence[int], num_blocks: int) -> nn.ModuleList:
        """Build one step for each of ``strides``; the input of the first one has stride 16."""
        steps, input_stage = nn.ModuleList(), LAST_STAGE
        for stride in strides:
            stage = DECODER_STAGES[stride]
            in_channels, channels = (EXPANSION * self.base_channels[i] for i in (input_stage, stage))
            fuse = self.fusion(in_channels, channels, stride=2 if stage > input_stage else 1)
            steps.append(DecoderStep(stride, fuse, self.group(channels, stage, stage, num_blocks)))
            input_stage = stage
        return steps

    def group(self, in_channels: int, input_stage: int, stage: int, num_blocks: int) -> BlockGroup:
        """Build blocks of ``stage``, whose input has ``in_channels`` and the stride of ``input_stage``."""
        base, blocks, layers = self.base_channels[stage], [], []
        for _ in range(num_blocks):
            resnet_stride = 2**input_stage  # 32 for stage 5, although its stride is 16 here
            rate = self.drop_path_rate(resnet_stride)
            block = self.axial_block if resnet_stride >= ATTENTION_STRIDE else self.conv_block
            stride = 2 if input_stage < stage < LAST_STAGE else 1
            blocks.append(block(in_channels, base, drop_path_rate=rate, stride=stride))

            # The input of the layer and of the next block is the output of this block.
            in_channels, input_stage = EXPANSION * base, stage
            if stage in self.dual_path_channels:
                channels = self.dual_path_channels[stage]
                layers.append(self.dual_path_layer(in_channels, channels=channels, drop_path_rate=rate))
        return BlockGroup(blocks, layers, self.with_cp)


@MODELS.register_module()
class DualPathAxialResNet(BaseModule):
    """Encoder, memory and stacked decoder of MaX-DeepLab; the defaults are those of MaX-DeepLab-S.

    Stages 2 to 5 have strides 4, 8, 16 and 16. MaX-DeepLab-L also has a stage 1, at stride 2.

    The stem and the stages are pretrained on ImageNet, in MaX-DeepLab-L together with a first decoder
    (``inner_decoder_strides``). These weights are public for TensorFlow only. The stem and the stages of
    MaX-DeepLab-S have the parameter names and shapes of :class:`AxialResNet` and can load its checkpoints.

    Args:
        num_blocks: number of blocks of each of the four or five stages.
        channels: base channels of each stage, whose output has 4 times as many channels.
        stem_channels: see :func:`build_stem`.
        conv_block: type of the blocks without attention, ``'bottleneck'`` or ``'basic'``.
        attention_expansion: see :class:`AxialBlock`.
        first_dual_path_stage: first stage with a dual-path layer after each block. Decoder blocks at strides
            4, 8 and 16 count as stages 2, 3 and 5.
        dual_path_channels: width of the dual-path layers of stage 5; proportional to ``channels`` elsewhere.
        ffn_channels: see :class:`DualPathLayer`.
        memory_channels, num_slots: shape (C', N) of the memory.
        inner_decoder_strides: strides of the pretrained decoder, which has one block at each. Empty for none.
        decoder_strides: strides of the decoder that is not pretrained, the last one 4.
        decoder_blocks: number of blocks at each of ``decoder_strides``, and at stride 16 before them.
        drop_path_rate: rate of the last blocks and layers, see :func:`drop_path_rate_at`.
        drop_path_stride: minimum stride of a block's input for drop path.
        with_cp: whether training keeps the inputs of blocks and layers alone and computes everything inside
            them again in the backward pass, which takes less memory and more time.

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
                 drop_path_rate: float = 0.0,
                 drop_path_stride: int = ATTENTION_STRIDE,
                 norm_cfg: NormConfig = KMAX_NORM,
                 act_cfg: ActConfig = MAX_ACT,
                 with_cp: bool = False,
                 init_cfg: Optional[Union[dict, list]] = None) -> None:
        super().__init__(init_cfg)
        check_stages('DualPathAxialResNet', num_blocks, channels, (4, 5))
        if conv_block not in CONV_BLOCKS:
            raise ValueError(f'Expected `conv_block` among {sorted(CONV_BLOCKS)}, but got {conv_block!r}.')
        if first_dual_path_stage > LAST_STAGE:
            raise ValueError('Expected `first_dual_path_stage` of DualPathAxialResNet to be at most '
                             f'{LAST_STAGE}, but got {first_dual_path_stage}.')
        _check_strides('inner_decoder_strides', inner_decoder_strides, last=16)
        _check_strides('decoder_strides', decoder_strides, last=4)
        cfgs: dict = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        base_channels = dict(enumerate(channels, LAST_STAGE + 1 - len(channels)))
        dual_path_ratio = dual_path_channels / channels[-1]
        builder = BlockBuilder(
            base_channels=base_channels,
            dual_path_channels={
                stage: round(base * dual_path_ratio)
                for stage, base in base_channels.items() if stage >= first_dual_path_stage
            },
            drop_path_rate=lambda stride: drop_path_rate_at(stride, drop_path_rate, drop_path_stride),
            conv_block=partial(CONV_BLOCKS[conv_block], **cfgs),
            axial_block=partial(AxialBlock, attention_expansion=attention_expansion, **cfgs),
            dual_path_layer=partial(
                DualPathLayer, memory_channels=memory_channels, ffn_channels=ffn_channels, **cfgs),
            fusion=partial(StackedFusion, **cfgs),
            with_cp=with_cp)

        # Pixel path: pretrained parts up to the inner decoder, then the others
        self.act = build_activation_layer(act_cfg)
        self.stem = build_stem(stem_channels, **cfgs)
        self.dual_path_layers = nn.ModuleList()  # filled below; defined here for the order of the parameters
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
        """Encode and decode normalized images (B, 3, H, W); H and W are preferably 32k + 1."""
        memory = self.memory.expand(image.shape[0], -1, -1)

        # Stages. The decoders do not use stage 4, which has the stride of stage 5.
        pixel = self.stem(image)
        outputs = []
        for stage in self.stages:
            pixel, memory = stage(pixel, memory)
            outputs.append(pixel)
        res2, res3, res4, res5 = outputs[-4:]
        features = {4: [res2], 8: [res3], 16: [res5]}

        # Pretrained decoder, if there is one
        for step in self.inner_decoder:
            pixel, memory, features = step(pixel, memory, features)
        pretrained = pixel

        # Additional blocks at stride 16, whose output replaces their input, and decoder; both not pretrained
        pixel, memory = self.stage5_extra(pixel, memory)
        features[16][-1] = pixel
        for step in self.decoder:
            pixel, memory, features = step(pixel, memory, features)

        # The auxiliary semantic head gets the decoder's second to last feature at stride 4, if it has two.
        has_two = sum(step.stride == 4 for step in self.decoder) > 1
        semantic = features[4][-2] if has_two else pretrained
        return DualPathFeatures(
            panoptic=self.act(pixel),
            semantic=tuple(self.act(feature) for feature in (res2, res3, res4, semantic)),
            class_embedding=self.class_embedding(memory),
            mask_embedding=self.mask_embedding(memory))


def _check_strides(name: str, strides: Sequence[int], last: int) -> None:
    """Check that the strides go from 16 to ``last`` and that each one is twice or half of the one before."""
    path = (16, *strides)
    by_two = all(max(pair) == 2 * min(pair) for pair in zip(path, path[1:]))
    if path[-1] != last or not by_two or not set(path) <= set(DECODER_STAGES):
        raise ValueError(f'Expected `{name}` of DualPathAxialResNet to go by factors of 2 from 16 to {last}, '
                         f'between 4 and 16, but got {tuple(strides)}.')
