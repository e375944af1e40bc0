import math

import pytest
import torch
from torch import nn

from remax_mm.models.layers.axial_attention import AxialAttention1d, AxialAttention2d, RelativePosition
from tests.random_statistics import randomize_norms


def _reference_attention_1d(attention, x):
    """Axial-DeepLab, Eq. 3, one sequence and one pair of positions at a time; norms in eval mode or none."""
    heads = attention.num_heads
    key_channels, _, value_channels = attention.split_sizes
    depth, value_depth = key_channels // heads, value_channels // heads
    tables = [
        module.table.detach()
        for module in (attention.query_relative_position, attention.key_relative_position,
                       attention.value_relative_position)
    ]
    middle = (tables[0].shape[0] - 1) // 2
    similarity_norm = _affine(attention.similarity_norm, 3 * heads)
    output_norm = _affine(attention.output_norm, 2 * value_channels)

    output = torch.zeros(x.shape[0], value_channels, x.shape[-1], dtype=x.dtype)
    for image, sequence in enumerate(attention.qkv(x).detach()):
        query, key, value = sequence[:key_channels], sequence[key_channels:2 *
                                                              key_channels], sequence[2 * key_channels:]
        for head in range(heads):
            rows = slice(head * depth, (head + 1) * depth)
            for i in range(x.shape[-1]):
                similarities = []
                for j in range(x.shape[-1]):
                    q, k, distance = query[rows, i], key[rows, j], j - i + middle
                    kinds = (q @ k, q @ tables[0][distance], k @ tables[1][distance])
                    similarities.append(
                        sum(similarity_norm(kind, index * heads + head) for index, kind in enumerate(kinds)))
                exponentials = [math.exp(similarity) for similarity in similarities]
                for channel in range(value_depth):
                    row = head * value_depth + channel
                    content = position = 0
                    for j, exponential in enumerate(exponentials):
                        weight = exponential / sum(exponentials)
                        content += weight * value[row, j]
                        position += weight * tables[2][j - i + middle, channel]
                    output[image, row, i] = (
                        output_norm(content, row) + output_norm(position, value_channels + row))
    return output


def _affine(norm, channels):
    """The norm as a function of a value and its channel."""
    if isinstance(norm, nn.Identity):
        return lambda value, channel: value
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    shift = (norm.bias - norm.running_mean * scale).detach()
    assert len(scale) == channels
    return lambda value, channel: value * scale[channel] + shift[channel]


@pytest.mark.parametrize('norms', [True, False])
def test_axial_attention_1d__naive_loops(norms):
    attention = AxialAttention1d(6, key_channels=4, value_channels=8, num_heads=2).double().eval()
    randomize_norms(attention)
    if not norms:
        attention.qkv.norm = attention.similarity_norm = attention.output_norm = nn.Identity()
    x = torch.randn(2, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(attention(x), _reference_attention_1d(attention, x))


def test_axial_attention_2d__columns_then_rows():
    attention = AxialAttention2d(6, key_channels=4, value_channels=8, num_heads=2).double().eval()
    randomize_norms(attention)
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)

    columns = torch.stack([attention.height_axis(x[..., column]) for column in range(5)], dim=-1)
    rows = torch.stack([attention.width_axis(columns[:, :, row]) for row in range(3)], dim=2)
    torch.testing.assert_close(attention(x), rows)


@pytest.mark.parametrize('size', [(1, 1), (1, 7), (6, 2)])
def test_axial_attention_2d__any_size_in_training(size):
    attention = AxialAttention2d(6, key_channels=4, value_channels=8, num_heads=2)
    output = attention(torch.randn(2, 6, *size))
    assert output.shape == (2, 8, *size)
    output.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attention.parameters())


def test_axial_attention_1d__batch_statistics_in_training():
    attention = AxialAttention1d(6, key_channels=4, value_channels=8, num_heads=2).double()
    normalized = []
    attention.output_norm.register_forward_hook(lambda module, args, result: normalized.append(result))
    output = attention(torch.randn(4, 6, 5, dtype=torch.float64))

    # Values and positions are normalized separately, then summed.
    torch.testing.assert_close(normalized[0].mean((0, 2)), torch.zeros(16, dtype=torch.float64))
    torch.testing.assert_close(normalized[0][:, :8] + normalized[0][:, 8:], output)


@pytest.mark.parametrize('norms', [True, False])
def test_axial_attention_2d__gradients(norms):
    attention = AxialAttention2d(2, key_channels=2, value_channels=4, num_heads=2).double()
    if not norms:
        for axis in (attention.height_axis, attention.width_axis):
            axis.qkv.norm = axis.similarity_norm = axis.output_norm = nn.Identity()
    for axis in (attention.height_axis, attention.width_axis):
        axis.query_relative_position.table.requires_grad_(False)  # 509 rows each, tested below
        axis.key_relative_position.table.requires_grad_(False)
        axis.value_relative_position.table.requires_grad_(False)
    x = torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    weight = attention.width_axis.qkv.conv.weight
    assert torch.autograd.gradcheck(lambda x, weight: attention(x), (x, weight))


def test_relative_position__gradient():
    position = RelativePosition(3).double()
    position(3).sum().backward()
    # Length 3 has distances d from -2 to 2, each 3 - |d| times. The table has distances from -254 to 254.
    counts = torch.zeros(509, dtype=torch.float64)
    counts[252:257] = torch.tensor([1, 2, 3, 2, 1])
    torch.testing.assert_close(position.table.grad, counts[:, None].expand(-1, 3))


def test_relative_position__row_is_key_minus_query_plus_254():
    position = RelativePosition(1)
    position.table.data = torch.arange(509.)[:, None]
    vectors = position(9)
    assert vectors.shape == (9, 9, 1)
    for query in range(9):
        for key in range(9):
            assert vectors[query, key] == key - query + 254

    # The maximum length uses both ends of the table.
    assert position(255)[254, 0] == 0 and position(255)[0, 254] == 508


def test_relative_position__axis_too_long():
    with pytest.raises(ValueError, match='at most 255 positions, but got 256'):
        RelativePosition(1)(256)


def test_relative_position__initialization():
    table = RelativePosition(64).table
    assert table.shape == (509, 64)
    assert table.abs().max() <= 2
    # 0.8796 is the standard deviation of a standard normal distribution truncated at 2.
    assert abs(table.std().item() - 0.8796) < 0.02


def test_axial_attention_1d__invalid_channels():
    with pytest.raises(ValueError, match='multiples of 8 heads, but got 12 and 16'):
        AxialAttention1d(4, 12, 16)


def test_axial_attention_1d__initialization():
    attention = AxialAttention1d(256, 128, 256)
    weight = attention.qkv.conv.weight
    assert weight.abs().max() <= 2 / 16  # truncated at two standard deviations of 256 ** -0.5
    assert abs(weight.std().item() * 16 - 0.8796) < 0.01
    assert all((norm.weight == 1).all() for norm in (attention.similarity_norm, attention.output_norm))


def test_axial_attention__shapes_of_deeplab2():
    # axial_layers_test.py; the defaults of deeplab2 are 512 key channels and 1024 value channels.
    assert AxialAttention1d(32, 512, 1024)(torch.randn(10, 32, 5)).shape == (10, 1024, 5)
    assert AxialAttention2d(32, 64, 64)(torch.randn(2, 32, 5, 4)).shape == (2, 64, 5, 4)
