"""The dual-path transformer layer: pixels and a global memory read from each other.

MaX-DeepLab (arXiv 2012.00759), in the form of deeplab2 model/layers/dual_path_transformer.py: batch norms in
place of the scaling by sqrt(depth). Of the four kinds of attention, pixel to pixel is the axial block before
the layer; the other three are here.
"""
from typing import NamedTuple, Tuple

import torch
from mmcv.cnn import build_activation_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from .attention import attend
from .conv_norm_act import KMAX_ACT, KMAX_NORM, ActConfig, ConvNormAct, NormConfig, build_norm


class Projection(NamedTuple):
    """What one path asks (query) and what it offers (key, value): (B, heads, depth, L) each."""
    query: Tensor
    key: Tensor
    value: Tensor


class PathProjection(nn.Module):
    """One path's input to queries and keys of half the width, and to values of the full width.

    Args:
        in_channels: of the path.
        channels: width of the layer.
        dim: 1 for the memory (B, C, N), 2 for pixels (B, C, h, w).
    """

    def __init__(self,
                 in_channels: int,
                 channels: int,
                 num_heads: int,
                 dim: int,
                 norm_cfg: NormConfig = KMAX_NORM,
                 act_cfg: ActConfig = KMAX_ACT) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.split_sizes = (channels // 2, channels // 2, channels)
        self.reduce = ConvNormAct(in_channels, channels, dim=dim, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.qkv = ConvNormAct(
            channels, 2 * channels, dim=dim, norm_cfg=norm_cfg, act=False, init=channels**-0.5)

    def forward(self, x: Tensor) -> Projection:
        """From (B, in_channels, N) or (B, in_channels, h, w), whose pixels are put in a row."""
        parts = self.qkv(self.reduce(x)).flatten(2).split(self.split_sizes, dim=1)
        return Projection(*(part.unflatten(1, (self.num_heads, -1)) for part in parts))


class PathAttention(nn.Module):
    """One path reads from one path or from both at once, in a single softmax.

    ``attention(memory, pixels)`` is memory to pixel, ``attention(memory, memory)`` memory to memory, both
    jointly ``attention(memory, pixels, memory)``; ``attention(pixels, memory)`` is pixel to memory.

    Args:
        channels: width of the layer.
        out_channels: of the path that reads.
    """

    def __init__(self,
                 channels: int,
                 out_channels: int,
                 num_heads: int,
                 norm_cfg: NormConfig = KMAX_NORM,
                 act_cfg: ActConfig = KMAX_ACT) -> None:
        super().__init__()
        self.similarity_norm = build_norm(norm_cfg, num_heads)
        self.value_norm = build_norm(norm_cfg, channels, dim=1)
        self.act = build_activation_layer(act_cfg)
        self.project = ConvNormAct(channels, out_channels, dim=1, norm_cfg=norm_cfg, act=False, norm_init=0.0)

    def forward(self, reader: Projection, *sources: Projection) -> Tensor:
        """(B, out_channels, L) for the L positions of ``reader``."""
        key = torch.cat([source.key for source in sources], dim=-1)
        value = torch.cat([source.value for source in sources], dim=-1)
        retrieved = attend(reader.query, key, value, self.similarity_norm, self.value_norm)
        return self.project(self.act(retrieved))


class DualPathLayer(nn.Module):
    """Memory and pixels read from each other, then the memory passes a feed-forward network.

    Args:
        pixel_channels, memory_channels: of the two paths, which the layer keeps.
        channels: width of values, twice that of queries and keys.
        ffn_channels: hidden width of the feed-forward network.
        num_heads: divides half of ``channels``.
        drop_path_rate: probability of dropping each of the three updates, one independently of the others.

    Raises:
        ValueError: the heads do not divide the keys.
    """

    def __init__(self,
                 pixel_channels: int,
                 memory_channels: int,
                 channels: int = 256,
                 ffn_channels: int = 2048,
                 num_heads: int = 8,
                 drop_path_rate: float = 0.0,
                 norm_cfg: NormConfig = KMAX_NORM,
                 act_cfg: ActConfig = KMAX_ACT) -> None:
        super().__init__()
        if channels % (2 * num_heads):
            raise ValueError(f'Expected `channels` of a dual-path layer to be a multiple of {2 * num_heads}, '
                             f'twice its heads, but got {channels}.')
        cfgs = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.act = build_activation_layer(act_cfg)
        self.pixel_projection = PathProjection(pixel_channels, channels, num_heads, dim=2, **cfgs)
        self.memory_projection = PathProjection(memory_channels, channels, num_heads, dim=1, **cfgs)
        self.pixel_attention = PathAttention(channels, pixel_channels, num_heads, **cfgs)
        self.memory_attention = PathAttention(channels, memory_channels, num_heads, **cfgs)
        self.ffn = nn.Sequential(
            ConvNormAct(memory_channels, ffn_channels, dim=1, **cfgs),
            ConvNormAct(ffn_channels, memory_channels, dim=1, norm_cfg=norm_cfg, act=False, norm_init=0.0))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, pixel: Tensor, memory: Tensor) -> Tuple[Tensor, Tensor]:
        """
        Args:
            pixel: (B, pixel_channels, h, w), not activated.
            memory: (B, memory_channels, N).

        Returns:
            Both paths updated; the pixels are still not activated.
        """
        # Either path shows the other what it was before the layer.
        from_pixel = self.pixel_projection(self.act(pixel))
        from_memory = self.memory_projection(memory)

        # Memory to pixel and memory to memory, jointly, then the feed-forward network.
        memory = self.act(memory +
                          self.drop_path(self.memory_attention(from_memory, from_pixel, from_memory)))
        memory = self.act(memory + self.drop_path(self.ffn(memory)))

        # Pixel to memory.
        update = self.pixel_attention(from_pixel, from_memory).unflatten(2, pixel.shape[-2:])
        return pixel + self.drop_path(update), memory
