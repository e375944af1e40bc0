"""Attention of MaX-DeepLab and kMaX-DeepLab without batch norms, for inference."""
import torch
from torch import Tensor, nn

from remax_mm.models.layers import attend
from remax_mm.models.layers.axial_attention import AxialAttention1d, AxialAttention2d
from remax_mm.models.layers.dual_path_attention import PathAttention, Projection
from remax_mm.structures import full_precision
from .folding import change_outputs, scale_and_shift

HEIGHT, WIDTH = 1, 2
"""Axes of pixels (B, h, w, C)."""


class FoldedAxialAttention1d(nn.Module):
    """:class:`AxialAttention1d` along one axis of an image, without norms and without reordered copies.

    The shift of a norm on similarities is the same for all keys, so softmax removes it. Its scale is that of
    the query, or of the key where the position is compared with the key. As attention weights sum to 1, the
    norm on retrieved values equals a norm on the values, which is folded into their projection.

    Args:
        attention: its projection has no norm; not changed.
        axis: ``HEIGHT`` or ``WIDTH``.
        stride: of the queries, whose positions are the positions of the output.
    """
    content_scale: Tensor
    query_scale: Tensor
    key_scale: Tensor
    position_scale: Tensor

    def __init__(self, attention: AxialAttention1d, axis: int, stride: int = 1) -> None:
        super().__init__()
        self.axis = axis
        self.stride = stride
        self.num_heads = attention.num_heads
        self.split_sizes = attention.split_sizes
        self.query_relative_position = attention.query_relative_position
        self.key_relative_position = attention.key_relative_position
        self.value_relative_position = attention.value_relative_position
        conv = attention.qkv.conv
        self.qkv = nn.Conv2d(conv.in_channels, conv.out_channels, 1, device=conv.weight.device)
        self.qkv.weight = nn.Parameter(conv.weight.unsqueeze(-1), requires_grad=conv.weight.requires_grad)
        self.qkv.bias = conv.bias

        # (heads, 1) each, for the last axes (heads, depth) of queries and keys
        scale, _ = scale_and_shift(attention.similarity_norm)
        for name, part in zip(('content_scale', 'query_scale', 'key_scale'), scale.view(3, -1, 1)):
            self.register_buffer(name, part.to(conv.weight.dtype))

        # The shifts of content and position are added to the values.
        scale, shift = (part.view(2, -1) for part in scale_and_shift(attention.output_norm))
        change_outputs(self.qkv, scale[0], shift.sum(0), start=2 * self.split_sizes[0])
        self.register_buffer('position_scale', scale[1].view(self.num_heads, -1).to(conv.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, value_channels, h', w') with channels last.

        h' = (h - 1) // stride + 1 and w' = w along the height, likewise along the width.
        """
        # Sequences of L pixels on R rows or columns: (B, R, L, heads, depth)
        tokens = self.qkv(x).permute(0, 2, 3, 1)
        if self.axis == HEIGHT:
            tokens = tokens.transpose(1, 2)
        length = tokens.shape[2]
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)) for part in tokens.split(self.split_sizes, dim=-1))
        query = query[:, :, ::self.stride]

        # Sum of three similarities of query l and key m
        similarity = torch.einsum('brlnd,brmnd->brnlm', query * self.content_scale, key)
        similarity = similarity + torch.einsum('brlnd,lmd->brnlm', query * self.query_scale,
                                               self.query_relative_position(length)[::self.stride])
        similarity = similarity + torch.einsum('brmnd,lmd->brnlm', key * self.key_scale,
                                               self.key_relative_position(length)[::self.stride])
        weights = full_precision(similarity).softmax(-1).to(value.dtype)

        # Sum of retrieved values and retrieved positions
        content = torch.einsum('brnlm,brmnd->brlnd', weights, value)
        position = torch.einsum('brnlm,lmd->brlnd', weights,
                                self.value_relative_position(length)[::self.stride].to(value.dtype))
        retrieved = torch.addcmul(content, position, self.position_scale.to(value.dtype)).flatten(3)
        if self.axis == HEIGHT:
            retrieved = retrieved.transpose(1, 2)
        return retrieved.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


class FoldedAxialAttention2d(nn.Module):
    """:class:`AxialAttention2d` of :class:`FoldedAxialAttention1d`."""

    def __init__(self, attention: AxialAttention2d) -> None:
        super().__init__()
        self.height_axis = FoldedAxialAttention1d(attention.height_axis, HEIGHT, attention.stride)
        self.width_axis = FoldedAxialAttention1d(attention.width_axis, WIDTH, attention.stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, value_channels, h', w') with h' = (h - 1) // stride + 1."""
        return self.width_axis(self.height_axis(x))


class FoldedPathAttention(nn.Module):
    """:class:`PathAttention` without norms; the norm on retrieved values is applied to the values instead.

    Args:
        attention: not changed. The scale of its similarities is folded elsewhere.
    """
    scale: Tensor
    shift: Tensor

    def __init__(self, attention: PathAttention, num_heads: int) -> None:
        super().__init__()
        self.act = attention.act
        self.project = attention.project
        dtype = next(attention.value_norm.parameters()).dtype
        for name, part in zip(('scale', 'shift'), scale_and_shift(attention.value_norm)):
            self.register_buffer(name, part.view(num_heads, -1, 1).to(dtype))
        self.identity = nn.Identity()

    def forward(self, target: Projection, *sources: Projection) -> Tensor:
        """Return (B, out_channels, L) for the L queries of ``target``, from the values of ``sources``.

        The values of all sources but the last are already normalized.
        """
        *others, memory = sources
        key = torch.cat([source.key for source in sources], dim=-1)
        values = [source.value for source in others] + [memory.value * self.scale + self.shift]
        retrieved = attend(target.query, key, torch.cat(values, dim=-1), self.identity, self.identity)
        return self.project(self.act(retrieved))
