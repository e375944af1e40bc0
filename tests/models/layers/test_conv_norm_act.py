import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from remax_mm.models.layers import (KMAX_NORM, ConvNormAct, DepthwiseSeparableConv, build_norm,
                                    truncated_normal_)
from tests.random_statistics import randomize_norms

TRUNCATED_STD = 0.8796
"""Standard deviation of a standard normal distribution truncated at 2."""


@pytest.mark.parametrize('dim, kind', [(1, nn.BatchNorm1d), (2, nn.BatchNorm2d)])
def test_build_norm__batch_norm_of_kmax(dim, kind):
    norm = build_norm(KMAX_NORM, 6, dim)
    assert type(norm) is kind
    assert (norm.num_features, norm.eps, norm.momentum) == (6, 1e-3, 0.01)


@pytest.mark.parametrize('channels', [1, 7, 24, 30, 256])
@pytest.mark.parametrize('dim', [1, 2])
def test_build_norm__number_of_groups(channels, dim):
    norm = build_norm(dict(type='GN', num_groups=32, eps=1e-3, momentum=0.01), channels, dim)
    x = torch.randn(2, channels, 5, *([3] * (dim - 1)))
    assert norm(x).shape == x.shape
    assert norm.eps == 1e-3
    assert norm.num_groups == max(n for n in range(1, 33) if channels % n == 0 and 32 % n == 0)


def test_build_norm__does_not_change_the_config():
    config = dict(type='GN', num_groups=32, momentum=0.01)
    build_norm(config, 7, 1)
    build_norm(KMAX_NORM, 7, 1)
    assert config == dict(type='GN', num_groups=32, momentum=0.01)
    assert KMAX_NORM == dict(type='BN', eps=1e-3, momentum=0.01)


def test_truncated_normal__range_and_std():
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


def test_conv_norm_act__act_cfg():
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


@pytest.mark.parametrize('kernel_size', [1, 3, 5])
def test_conv_norm_act__output_size(kernel_size):
    x = torch.randn(1, 2, 9, 5)
    assert ConvNormAct(2, 2, kernel_size)(x).shape == (1, 2, 9, 5)
    assert ConvNormAct(2, 2, kernel_size, stride=2)(x).shape == (1, 2, 5, 3)


def test_conv_norm_act__initializations():
    # "He" ignores the kernel area; a number is the standard deviation.
    for layer, std in ((ConvNormAct(128, 256, 3), math.sqrt(2 / 128)), (ConvNormAct(64, 4096,
                                                                                    init=0.01), 0.01)):
        weight = layer.conv.weight
        assert weight.abs().max() <= 2 * std
        assert abs(weight.std().item() / std - TRUNCATED_STD) < 0.01

    # The limit of Xavier is sqrt(6 / (fan in + fan out)). A 5x5 depthwise convolution has fans 25 and 25 C.
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
