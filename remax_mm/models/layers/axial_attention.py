"""Attention along one image axis at a time, with relative positions for query, key and value.

Axial-DeepLab (arXiv 2003.07853, Eq. 3), in the form of MaX- and kMaX-DeepLab (deeplab2
model/layers/axial_layers.py): batch norms in place of the scaling by sqrt(depth).
"""
import torch
from torch import Tensor, nn

from remax_mm.structures import full_precision
from .conv_norm_act import KMAX_NORM, ConvNormAct, NormConfig, build_norm, truncated_normal_


class RelativePosition(nn.Module):
    """A learned vector for each signed distance between two positions on an axis, shared by all heads.

    Args:
        depth: length of the vectors.
        max_length: longest axis that the table covers.
    """

    def __init__(self, depth: int, max_length: int = 255) -> None:
        super().__init__()
        self.max_length = max_length
        self.table = nn.Parameter(torch.empty(2 * max_length - 1, depth))
        truncated_normal_(self.table, std=1.0)

    def forward(self, length: int) -> Tensor:
        """Vectors (length, length, depth) for [query position, key position].

        Raises:
            ValueError: the axis is longer than the table covers.
        """
        if length > self.max_length:
            raise ValueError(f'Expected an axis of at most {self.max_length} positions, but got {length}: '
                             'the input is too large for the relative positions of axial attention.')
        position = torch.arange(length, device=self.table.device)
        distance = position[None, :] - position[:, None]
        return self.table[distance + self.max_length - 1]


class AxialAttention1d(nn.Module):
    """Multi-head self-attention along one axis.

    Args:
        in_channels: channels of the input.
        key_channels: channels of the queries and of the keys, over all heads.
        value_channels: channels of the values and of the output, over all heads.
        num_heads: divides both.
    """

    def __init__(self,
                 in_channels: int,
                 key_channels: int,
                 value_channels: int,
                 num_heads: int = 8,
                 norm_cfg: NormConfig = KMAX_NORM) -> None:
        super().__init__()
        if key_channels % num_heads or value_channels % num_heads:
            raise ValueError(f'Expected key and value channels to be multiples of {num_heads} heads, '
                             f'but got {key_channels} and {value_channels}.')
        self.num_heads = num_heads
        self.split_sizes = (key_channels, key_channels, value_channels)
        self.qkv = ConvNormAct(
            in_channels, sum(self.split_sizes), dim=1, norm_cfg=norm_cfg, act=False, init=in_channels**-0.5)
        self.query_relative_position = RelativePosition(key_channels // num_heads)
        self.key_relative_position = RelativePosition(key_channels // num_heads)
        self.value_relative_position = RelativePosition(value_channels // num_heads)
        self.similarity_norm = build_norm(norm_cfg, 3 * num_heads)
        self.output_norm = build_norm(norm_cfg, 2 * value_channels, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, L) to (B, value_channels, L); the rows of an image count as images of B here."""
        length = x.shape[-1]
        query, key, value = self.qkv(x).split(self.split_sizes, dim=1)
        query = query.unflatten(1, (self.num_heads, -1))  # (B, heads, depth, L)
        key = key.unflatten(1, (self.num_heads, -1))
        value = value.unflatten(1, (self.num_heads, -1))

        # Three kinds of similarity, each normalized by head, then summed: query l, key m.
        content = torch.einsum('bhdl,bhdm->bhlm', query, key)
        query_position = torch.einsum('bhdl,lmd->bhlm', query, self.query_relative_position(length))
        key_position = torch.einsum('bhdm,lmd->bhlm', key, self.key_relative_position(length))
        similarity = self.similarity_norm(torch.cat([content, query_position, key_position], dim=1))
        weights = full_precision(similarity).unflatten(1, (3, self.num_heads)).sum(1).softmax(-1)

        # What is retrieved, values and their positions, each normalized by channel, then summed.
        weights = weights.to(value.dtype)
        content = torch.einsum('bhlm,bhdm->bhdl', weights, value)
        value_position = self.value_relative_position(length).to(value.dtype)
        position = torch.einsum('bhlm,lmd->bhdl', weights, value_position)
        retrieved = torch.cat([content, position], dim=1).flatten(1, 2)
        return self.output_norm(retrieved).unflatten(1, (2, -1)).sum(1)


class AxialAttention2d(nn.Module):
    """Attention along the height axis, then along the width axis.

    Args:
        in_channels: channels of the input.
        key_channels: channels of queries and keys, over all heads.
        value_channels: channels of values and output, over all heads.
        stride: every stride-th row is kept after the height axis, every stride-th column after the other.
    """

    def __init__(self,
                 in_channels: int,
                 key_channels: int,
                 value_channels: int,
                 num_heads: int = 8,
                 norm_cfg: NormConfig = KMAX_NORM,
                 stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.height_axis = AxialAttention1d(in_channels, key_channels, value_channels, num_heads, norm_cfg)
        self.width_axis = AxialAttention1d(value_channels, key_channels, value_channels, num_heads, norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, value_channels, h', w'), h' = (h - 1) // stride + 1."""
        batch_size, width = x.shape[0], x.shape[3]

        # Every column is a sequence of its own.
        x = x.permute(0, 3, 1, 2).flatten(0, 1)  # (B * w, C, h)
        x = self.height_axis(x)[..., ::self.stride]
        height = x.shape[-1]

        # Then every row.
        x = x.unflatten(0, (batch_size, width)).permute(0, 3, 2, 1).flatten(0, 1)  # (B * h', C, w)
        x = self.width_axis(x)[..., ::self.stride]
        return x.unflatten(0, (batch_size, height)).permute(0, 2, 1, 3)
