"""Self-attention along one image axis, with relative positions for query, key and value.

Axial-DeepLab (arXiv 2003.07853), Eq. 3, as implemented in google-research/deeplab2,
model/layers/axial_layers.py: with batch norms instead of the scaling by sqrt(depth).
"""
import torch
from torch import Tensor, nn

from remax_mm.structures import full_precision
from .conv_norm_act import KMAX_NORM, ConvNormAct, NormConfig, build_norm, truncated_normal_
from .recomputation import recompute_cheap

MAX_LENGTH = 255
"""Maximum number of positions on an axis, as in deeplab2."""


class RelativePosition(nn.Module):
    """A learned vector for each signed distance between two positions on an axis, shared by all heads.

    Args:
        depth: length of the vectors.
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(2 * MAX_LENGTH - 1, depth))
        truncated_normal_(self.table, std=1.0)

    def forward(self, length: int) -> Tensor:
        """Return vectors (length, length, depth), indexed by query position and key position.

        Raises:
            ValueError: the axis has more than ``MAX_LENGTH`` positions.
        """
        if length > MAX_LENGTH:
            raise ValueError(
                f'Expected an axis of at most {MAX_LENGTH} positions, but got {length}: the image '
                'is too large for the relative positions of axial attention.')
        position = torch.arange(length, device=self.table.device)
        distance = position[None, :] - position[:, None]
        return self.table[distance + MAX_LENGTH - 1]


class AxialAttention1d(nn.Module):
    """Multi-head self-attention along one axis.

    Args:
        in_channels: channels of the input.
        key_channels: channels of the queries and of the keys, summed over the heads.
        value_channels: channels of the values and of the output, summed over the heads.
        num_heads: must divide ``key_channels`` and ``value_channels``.

    Raises:
        ValueError: ``num_heads`` does not divide the channels.
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
        """(B, in_channels, L) -> (B, value_channels, L); B counts all rows or columns of all images."""
        # The similarities take far more memory than their inputs.
        retrieved = recompute_cheap(self._retrieve, self.qkv.conv(x), module=self)
        return self.output_norm(retrieved).unflatten(1, (2, -1)).sum(1)

    def _retrieve(self, projected: Tensor) -> Tensor:
        """Queries, keys and values (B, C, L) before their norm -> retrieved values and positions, each
        (B, value_channels, L), concatenated."""
        length = projected.shape[-1]
        parts = self.qkv.norm(projected).split(self.split_sizes, dim=1)
        query, key, value = (part.unflatten(1, (self.num_heads, -1))
                             for part in parts)  # (B, heads, depth, L)

        # Sum of three similarities of query l and key m, each normalized separately for each head.
        content = torch.einsum('bhdl,bhdm->bhlm', query, key)
        query_position = torch.einsum('bhdl,lmd->bhlm', query, self.query_relative_position(length))
        key_position = torch.einsum('bhdm,lmd->bhlm', key, self.key_relative_position(length))
        similarity = self.similarity_norm(torch.cat([content, query_position, key_position], dim=1))
        weights = full_precision(similarity).unflatten(1, (3, self.num_heads)).sum(1).softmax(-1)

        # Sum of retrieved values and retrieved positions, each normalized separately for each channel.
        weights = weights.to(value.dtype)
        content = torch.einsum('bhlm,bhdm->bhdl', weights, value)
        value_position = self.value_relative_position(length).to(value.dtype)
        position = torch.einsum('bhlm,lmd->bhdl', weights, value_position)
        return torch.cat([content, position], dim=1).flatten(1, 2)


class AxialAttention2d(nn.Module):
    """Attention along the height axis, then along the width axis.

    Args:
        in_channels, key_channels, value_channels, num_heads: see :class:`AxialAttention1d`.
        stride: of the rows that are kept after the first attention, and of the columns kept after the second.
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
        """(B, in_channels, h, w) -> (B, value_channels, h', w') with h' = (h - 1) // stride + 1."""
        batch_size, width = x.shape[0], x.shape[3]

        # Each column is a sequence.
        x = x.permute(0, 3, 1, 2).flatten(0, 1)  # (B * w, C, h)
        x = self.height_axis(x)[..., ::self.stride]
        height = x.shape[-1]

        # Then each row is a sequence.
        x = x.unflatten(0, (batch_size, width)).permute(0, 3, 2, 1).flatten(0, 1)  # (B * h', C, w)
        x = self.width_axis(x)[..., ::self.stride]
        return x.unflatten(0, (batch_size, height)).permute(0, 2, 1, 3)
