"""The dual-path transformer layer of MaX-DeepLab: attention between pixels and a global memory.

MaX-DeepLab (arXiv 2012.00759), as implemented in google-research/deeplab2,
model/layers/dual_path_transformer.py: with batch norms instead of the scaling by sqrt(depth). The layer has
three of the paper's four kinds of attention. The fourth one, pixel-to-pixel, is the residual block before it.
"""
from typing import NamedTuple, Tuple

import torch
from mmcv.cnn import build_activation_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from .attention import attend
from .conv_norm_act import KMAX_ACT, KMAX_NORM, ActConfig, ConvNormAct, NormConfig, build_norm
from .recomputation import recompute_cheap


class Projection(NamedTuple):
    """Query, key and value of one path, (B, heads, depth, L) each."""
    query: Tensor
    key: Tensor
    value: Tensor


class PathProjection(nn.Module):
    """Project one path to queries and keys of half the width and to values of the full width.

    Args:
        in_channels: channels of the path.
        channels: width of the layer.
        num_heads: must divide half of ``channels``.
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
        """Project (B, in_channels, L), or (B, in_channels, h, w) with L = h * w."""
        parts = self.qkv(self.reduce(x)).flatten(2).split(self.split_sizes, dim=1)
        return Projection(*(part.unflatten(1, (self.num_heads, -1)) for part in parts))


class PathAttention(nn.Module):
    """Attention from one path to one or both paths, with a single softmax over all keys.

    ``attention(pixel, memory)`` is pixel-to-memory attention, ``attention(memory, pixel, memory)`` is
    memory-to-pixel and memory-to-memory attention in one.

    Args:
        channels: width of the layer.
        out_channels: channels of the path with the queries.
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

    def forward(self, target: Projection, *sources: Projection) -> Tensor:
        """Return (B, out_channels, L) for the L queries of ``target``, from the values of ``sources``."""
        key = torch.cat([source.key for source in sources], dim=-1)
        value = torch.cat([source.value for source in sources], dim=-1)
        retrieved = recompute_cheap(
            attend, target.query, key, value, self.similarity_norm, self.value_norm, module=self)
        return self.project(self.act(retrieved))


class DualPathLayer(nn.Module):
    """Attention in both directions between pixels and memory, then a feed-forward network on the memory.

    Args:
        pixel_channels: channels of the pixel path, input and output.
        memory_channels: channels of the memory path, input and output.
        channels: width of the values; queries and keys have half of it.
        ffn_channels: hidden width of the feed-forward network.
        num_heads: must divide half of ``channels``.
        drop_path_rate: probability of dropping each of the three updates, independently.

    Raises:
        ValueError: ``num_heads`` does not divide half of ``channels``.
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
            raise ValueError(
                'Expected the width of a dual-path layer to be a multiple of twice its number of '
                f'heads, {2 * num_heads}, but got {channels}.')
        cfgs: dict = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
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
        """Update both paths.

        Args:
            pixel: (B, pixel_channels, h, w), not activated.
            memory: (B, memory_channels, N).

        Returns:
            Both paths with the same shapes; the pixels are not activated.
        """
        # All attention uses both paths as they are before the layer.
        from_pixel = self.pixel_projection(self.act(pixel))
        from_memory = self.memory_projection(memory)

        # Memory-to-pixel and memory-to-memory attention with one softmax, then the feed-forward network
        memory = self.act(memory +
                          self.drop_path(self.memory_attention(from_memory, from_pixel, from_memory)))
        memory = self.act(memory + self.drop_path(self.ffn(memory)))

        # Pixel-to-memory attention
        update = self.pixel_attention(from_pixel, from_memory).unflatten(2, pixel.shape[-2:])
        return pixel + self.drop_path(update), memory
