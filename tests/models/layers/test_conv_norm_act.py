import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from remax_mm.models.layers import (KMAX_NORM, ConvNormAct, DepthwiseSeparableConv, build_norm, resize_to,
                                    truncated_normal_)
from remax_mm.structures import full_precision
from tests.random_statistics import randomize_norms

TRUNCATED_STD = 0.8796
"""Standard deviation of a standard normal distribution cut at two standard deviations."""


def _reference_resize(x, size):
    """Bilinear with aligned corners, one pixel after the other; (h, w) to ``size``."""
    output = torch.zeros(size, dtype=x.dtype)
    for row in range(size[0]):
        for column in range(size[1]):
            top = row * (x.shape[0] - 1) / max(size[0] - 1, 1)
            left = column * (x.shape[1] - 1) / max(size[1] - 1, 1)
            for i in (math.floor(top), math.ceil(top)):
                for j in (math.floor(left), math.ceil(left)):
                    share = (1 - abs(top - i)) * (1 - abs(left - j))
                    repeats = (1 + (top == int(top))) * (1 + (left == int(left)))
                    output[row, column] += share * x[i, j] / repeats
    return output


@pytest.mark.parametrize('size', [(5, 9), (2, 2), (9, 3), (1, 4)])
def test_resize_to__naive_loops(size):
    x = torch.randn(2, 3, 3, 5, dtype=torch.float64)
    resized = resize_to(x, size)
    assert resized.shape == (2, 3, *size)
    torch.testing.assert_close(resized[1, 2], _reference_resize(x[1, 2], size))


def test_resize_to__keeps_every_corner_pixel():
    # At sizes 32k + 1 the coarse pixels lie exactly on every s-th fine pixel.
    x = torch.randn(1, 1, 3, 5)
    torch.testing.assert_close(resize_to(x, (9, 17))[..., ::4, ::4], x)


def test_resize_to__same_size_is_the_same_object():
    x = torch.randn(1, 2, 3, 4)
    assert resize_to(x, torch.Size([3, 4])) is x


@pytest.mark.parametrize('dtype, expected', [(torch.float16, torch.float32), (torch.bfloat16, torch.float32),
                                             (torch.float32, torch.float32), (torch.float64, torch.float64)])
def test_full_precision__widens_only(dtype, expected):
    assert full_precision(torch.ones(2, dtype=dtype)).dtype == expected


@pytest.mark.parametrize('dim, kind', [(1, nn.BatchNorm1d), (2, nn.BatchNorm2d)])
def test_build_norm__batch_norm_of_kmax(dim, kind):
    norm = build_norm(KMAX_NORM, 6, dim)
    assert type(norm) is kind
    assert (norm.num_features, norm.eps, norm.momentum) == (6, 1e-3, 0.01)


@pytest.mark.parametrize('channels', [1, 7, 24, 30, 256])
@pytest.mark.parametrize('dim', [1, 2])
def test_build_norm__group_norm_at_any_width(channels, dim):
    norm = build_norm(dict(type='GN', num_groups=32, eps=1e-3, momentum=0.01), channels, dim)
    x = torch.randn(2, channels, 5, *([3] * (dim - 1)))
    assert norm(x).shape == x.shape
    assert norm.eps == 1e-3
    assert norm.num_groups == max(n for n in range(1, 33) if channels % n == 0 and 32 % n == 0)


def test_build_norm__leaves_the_config_alone():
    config = dict(type='GN', num_groups=32, momentum=0.01)
    build_norm(config, 7, 1)
    build_norm(KMAX_NORM, 7, 1)
    assert config == dict(type='GN', num_groups=32, momentum=0.01)
    assert KMAX_NORM == dict(type='BN', eps=1e-3, momentum=0.01)


def test_truncated_normal__cut_at_two_standard_deviations():
    weight = torch.empty(100_000)
    truncated_normal_(weight, std=0.3)
    assert weight.abs().max() <= 0.6
    assert abs(weight.std().item() / 0.3 - TRUNCATED_STD) < 0.01


def test_conv_norm_act__order():
    layer = randomize_norms(ConvNormAct(3, 4, 3, bias=True)).eval()
    x = torch.randn(2, 3, 5, 6)
    expected = F.conv2d(x, layer.conv.weight, layer.conv.bias, padding=1)
    expected = (expected - layer.norm.running_mean[:, None, None]) / (layer.norm.running_var[:, None, None] +
                                                                      1e-3).sqrt()
    expected = expected * layer.norm.weight[:, None, None] + layer.norm.bias[:, None, None]
    expected = expected * 0.5 * (1 + torch.erf(expected / math.sqrt(2)))  # the exact GELU
    torch.testing.assert_close(layer(x), expected)


def test_conv_norm_act__activation_of_the_config():
    relu = randomize_norms(ConvNormAct(3, 4, 3, act_cfg=dict(type='ReLU'))).eval()
    bare = ConvNormAct(3, 4, 3, act=False, act_cfg=dict(type='ReLU')).eval()
    bare.load_state_dict(relu.state_dict())
    x = torch.randn(2, 3, 5, 6)
    assert (bare(x) < 0).any()
    torch.testing.assert_close(relu(x), bare(x).clamp(min=0))


def test_conv_norm_act__without_norm_and_activation():
    layer = ConvNormAct(3, 4, dim=1, bias=True, norm_cfg=None, act=False)
    x = torch.randn(2, 3, 5)
    torch.testing.assert_close(layer(x), F.conv1d(x, layer.conv.weight, layer.conv.bias))


@pytest.mark.parametrize('kernel_size, dilation', [(1, 1), (3, 1), (5, 1), (3, 6)])
def test_conv_norm_act__keeps_the_size(kernel_size, dilation):
    layer = ConvNormAct(2, 2, kernel_size, dilation=dilation)
    assert layer(torch.randn(1, 2, 7, 4)).shape == (1, 2, 7, 4)


def test_conv_norm_act__strides_and_paddings():
    x = torch.randn(1, 2, 9, 5)
    assert ConvNormAct(2, 2, 3, stride=2)(x).shape == (1, 2, 5, 3)
    assert ConvNormAct(2, 2, 3, padding=0)(x).shape == (1, 2, 7, 3)


def test_conv_norm_act__initializations():
    # "He" ignores the kernel's area; a number is the standard deviation itself.
    for layer, std in ((ConvNormAct(128, 256, 3), math.sqrt(2 / 128)), (ConvNormAct(64, 4096,
                                                                                    init=0.01), 0.01)):
        weight = layer.conv.weight
        assert weight.abs().max() <= 2 * std
        assert abs(weight.std().item() / std - TRUNCATED_STD) < 0.01

    # Xavier's uniform limit sqrt(6 / (fan in + fan out)); a 5x5 depthwise kernel has both fans 25 and 25 C.
    weight = ConvNormAct(64, 64, 5, groups=64, init='xavier').conv.weight
    limit = math.sqrt(6 / (25 + 25 * 64))
    assert 0.98 * limit < weight.abs().max() <= limit

    layer = ConvNormAct(3, 4, bias=True, norm_init=0.0)
    assert (layer.norm.weight == 0).all() and (layer.norm.bias == 0).all() and (layer.conv.bias == 0).all()


def test_depthwise_separable_conv__channel_by_channel():
    layer = randomize_norms(DepthwiseSeparableConv(3, 4)).eval()
    x = torch.randn(2, 3, 6, 7)
    depthwise, pointwise = layer
    channels = [F.conv2d(x[:, c:c + 1], depthwise.conv.weight[c:c + 1], padding=2) for c in range(3)]
    expected = F.gelu(depthwise.norm(torch.cat(channels, dim=1)))
    expected = F.gelu(
        pointwise.norm(torch.einsum('bchw,dc->bdhw', expected, pointwise.conv.weight[..., 0, 0])))
    torch.testing.assert_close(layer(x), expected)
