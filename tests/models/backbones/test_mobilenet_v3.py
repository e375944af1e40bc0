import warnings

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS

from remax_mm.models.backbones.mobilenet_v3 import KMaXMobileNetV3, rename_torchvision_weights

# Tables of torchvision: input channels, kernel size, expanded channels, output channels,
# squeeze-and-excitation, activation, stride
TORCHVISION_BLOCKS = dict(
    small=[(16, 3, 16, 16, True, 'RE', 2), (16, 3, 72, 24, False, 'RE', 2), (24, 3, 88, 24, False, 'RE', 1),
           (24, 5, 96, 40, True, 'HS', 2), (40, 5, 240, 40, True, 'HS', 1), (40, 5, 240, 40, True, 'HS', 1),
           (40, 5, 120, 48, True, 'HS', 1), (48, 5, 144, 48, True, 'HS', 1), (48, 5, 288, 96, True, 'HS', 2),
           (96, 5, 576, 96, True, 'HS', 1), (96, 5, 576, 96, True, 'HS', 1)],
    large=[(16, 3, 16, 16, False, 'RE', 1), (16, 3, 64, 24, False, 'RE', 2), (24, 3, 72, 24, False, 'RE', 1),
           (24, 5, 72, 40, True, 'RE', 2), (40, 5, 120, 40, True, 'RE', 1), (40, 5, 120, 40, True, 'RE', 1),
           (40, 3, 240, 80, False, 'HS', 2), (80, 3, 200, 80, False, 'HS', 1),
           (80, 3, 184, 80, False, 'HS', 1), (80, 3, 184, 80, False, 'HS', 1),
           (80, 3, 480, 112, True, 'HS', 1), (112, 3, 672, 112, True, 'HS', 1),
           (112, 5, 672, 160, True, 'HS', 2), (160, 5, 960, 160, True, 'HS', 1),
           (160, 5, 960, 160, True, 'HS', 1)])
SQUEEZED = {16: 8, 72: 24, 96: 24, 120: 32, 144: 40, 240: 64, 288: 72, 480: 120, 576: 144, 672: 168, 960: 240}
# Blocks, numbered from 1, whose depthwise outputs are the features; 0 is the stem.
FEATURE_BLOCKS = dict(small=(0, 1, 3, 8), large=(1, 3, 6, 12))


@pytest.mark.parametrize('arch, parameters, channels', [('small', 927_008, (16, 16, 88, 144, 576)),
                                                        ('large', 2_971_952, (16, 72, 120, 672, 960))])
def test_mobilenet_v3__parameters_and_sizes_of_deeplab2(arch, parameters, channels):
    backbone = KMaXMobileNetV3(arch, out_indices=range(5)).eval()
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    with torch.no_grad():
        features = backbone(torch.rand(1, 3, 321, 321))
    expected = zip(channels, (161, 81, 41, 21, 11))
    assert [tuple(f.shape) for f in features] == [(1, width, size, size) for width, size in expected]


@pytest.mark.parametrize('gate', ['hard_sigmoid', 'sigmoid'])
@pytest.mark.parametrize('arch', ['small', 'large'])
@pytest.mark.parametrize('size', [65, 64])
def test_mobilenet_v3__forward_of_torchvision(arch, gate, size):
    weights = _torchvision_weights(arch)
    backbone = KMaXMobileNetV3(arch, out_indices=range(5), gate=gate).eval()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        keys = backbone.load_state_dict(weights, strict=True)
    assert not keys.missing_keys and not keys.unexpected_keys

    image = torch.randn(2, 3, size, size)
    with torch.no_grad():
        features = backbone(image)
        expected = _reference_features(image, weights, arch, gate)
    assert len(features) == len(expected) == 5
    for feature, reference in zip(features, expected):
        torch.testing.assert_close(feature, reference, rtol=1e-4, atol=1e-5)


def test_mobilenet_v3__loads_weights_of_torchvision(tmp_path):
    weights = _torchvision_weights('small')
    torch.save(weights, tmp_path / 'mobilenet_v3_small.pth')
    backbone = MODELS.build(
        dict(
            type='KMaXMobileNetV3',
            arch='small',
            gate='hard_sigmoid',
            init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'mobilenet_v3_small.pth'))))
    backbone.init_weights()
    torch.testing.assert_close(backbone.stem.conv.weight, weights['features.0.0.weight'])
    torch.testing.assert_close(backbone.blocks[3].se.conv2.conv.bias, weights['features.4.block.2.fc2.bias'])
    torch.testing.assert_close(backbone.last_conv.bn.running_var, weights['features.12.1.running_var'])


def test_mobilenet_v3__loads_weights_with_a_prefix():
    model, other = torch.nn.ModuleDict(), torch.nn.ModuleDict()
    model['backbone'], other['backbone'] = KMaXMobileNetV3('small'), KMaXMobileNetV3('small')
    other.load_state_dict(model.state_dict())
    for ours, theirs in zip(model.parameters(), other.parameters()):
        assert torch.equal(ours, theirs)

    torchvision = {f'backbone.{key}': value for key, value in _torchvision_weights('small').items()}
    with pytest.warns(UserWarning, match="trained with gate='hard_sigmoid'"):
        other.load_state_dict(torchvision)
    assert torch.equal(other['backbone'].stem.conv.weight, torchvision['backbone.features.0.0.weight'])


def test_rename_torchvision_weights__all_names():
    weights = _torchvision_weights('large')
    weights['classifier.3.bias'] = torch.zeros(1000)
    renamed = rename_torchvision_weights(weights, 'large')
    own = KMaXMobileNetV3('large').state_dict()
    assert set(renamed) == set(own)
    assert all(renamed[key].shape == own[key].shape for key in own)


@pytest.mark.parametrize('arch, other', [('small', 'large'), ('large', 'small')])
def test_rename_torchvision_weights__another_arch(arch, other):
    with pytest.raises(ValueError, match=f'mobilenet_v3_{arch}, but got .features'):
        rename_torchvision_weights(_torchvision_weights(other), arch)


def test_mobilenet_v3__out_indices():
    backbone = KMaXMobileNetV3('small', out_indices=range(5)).eval()
    image = torch.rand(1, 3, 33, 33)
    with torch.no_grad():
        every = backbone(image)
        backbone.out_indices = (1, 2, 3, 4)
        assert all(torch.equal(a, b) for a, b in zip(backbone(image), every[1:]))
    assert KMaXMobileNetV3('small').out_indices == (1, 2, 3, 4)


@pytest.mark.parametrize('wrong', [
    dict(arch='medium'),
    dict(arch='small', gate='tanh'),
    dict(arch='small', out_indices=(1, 5)),
])
def test_mobilenet_v3__invalid_arguments(wrong):
    with pytest.raises(ValueError, match='Expected `.*` of KMaXMobileNetV3 to be one of .* but got'):
        KMaXMobileNetV3(**wrong)


def test_mobilenet_v3__norms_of_kmax():
    norms = [m for m in KMaXMobileNetV3('small').modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 34
    assert all(norm.eps == 1e-3 and norm.momentum == 0.01 for norm in norms)


def test_mobilenet_v3__every_parameter_gets_a_gradient():
    backbone = KMaXMobileNetV3('small').train()
    sum(feature.square().mean() for feature in backbone(torch.rand(2, 3, 65, 65))).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in backbone.parameters())


def _conv_names(arch):
    """Names and weight shapes of torchvision's convolutions with a norm; names and channels of its gates."""
    convs, gates = [('features.0', (16, 3, 3, 3))], []
    for i, (width, kernel, expanded, out, squeeze, _, _) in enumerate(TORCHVISION_BLOCKS[arch], start=1):
        layers = [(expanded, width, 1, 1)] if expanded != width else []
        layers += [(expanded, 1, kernel, kernel)] + ([None] if squeeze else []) + [(out, expanded, 1, 1)]
        for j, shape in enumerate(layers):
            name = f'features.{i}.block.{j}'
            if shape is None:
                gates.append((name, expanded))
            else:
                convs.append((name, shape))
    return convs + [(f'features.{i + 1}', (6 * out, out, 1, 1))], gates


def _torchvision_weights(arch):
    generator = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    weights = {}
    convs, gates = _conv_names(arch)
    for name, shape in convs:
        weights[f'{name}.0.weight'] = normal(*shape) * (2 / (shape[1] * shape[2] * shape[3]))**0.5
        weights[f'{name}.1.weight'] = 1 + 0.1 * normal(shape[0])
        weights[f'{name}.1.bias'] = 0.1 * normal(shape[0])
        weights[f'{name}.1.running_mean'] = 0.1 * normal(shape[0])
        weights[f'{name}.1.running_var'] = 1 + 0.1 * normal(shape[0]).abs()
        weights[f'{name}.1.num_batches_tracked'] = torch.tensor(0)
    for name, expanded in gates:
        squeezed = SQUEEZED[expanded]
        weights[f'{name}.fc1.weight'] = normal(squeezed, expanded, 1, 1) / expanded**0.5
        weights[f'{name}.fc1.bias'] = normal(squeezed)
        weights[f'{name}.fc2.weight'] = normal(expanded, squeezed, 1, 1) / squeezed**0.5
        weights[f'{name}.fc2.bias'] = normal(expanded)
    return weights


def _reference_features(x, weights, arch, gate):
    """Features of torchvision's network, written with functions."""

    def conv_norm(x, name, stride=1, groups=1):
        weight = weights[f'{name}.0.weight']
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        norm = [weights[f'{name}.1.{part}'] for part in ('running_mean', 'running_var', 'weight', 'bias')]
        return F.batch_norm(x, *norm, training=False, eps=1e-3)

    activations = dict(RE=F.relu, HS=lambda x: x * F.relu6(x + 3) / 6)
    gates = dict(sigmoid=torch.sigmoid, hard_sigmoid=lambda x: F.relu6(x + 3) / 6)
    x = activations['HS'](conv_norm(x, 'features.0', stride=2))
    depthwise = [x]
    for i, (width, _, expanded, out, squeeze, act, stride) in enumerate(TORCHVISION_BLOCKS[arch], start=1):
        act, block, j, y = activations[act], f'features.{i}.block', 0, x
        if expanded != width:
            y, j = act(conv_norm(y, f'{block}.{j}')), j + 1
        y, j = act(conv_norm(y, f'{block}.{j}', stride, groups=expanded)), j + 1
        depthwise.append(y)
        if squeeze:
            scale = y.mean((2, 3), keepdim=True)
            for fc, function in (('fc1', F.relu), ('fc2', gates[gate])):
                name = f'{block}.{j}.{fc}'
                scale = function(F.conv2d(scale, weights[f'{name}.weight'], weights[f'{name}.bias']))
            y, j = y * scale, j + 1
        y = conv_norm(y, f'{block}.{j}')
        x = x + y if stride == 1 and width == out else y
    last = activations['HS'](conv_norm(x, f'features.{i + 1}'))
    return [depthwise[i] for i in FEATURE_BLOCKS[arch]] + [last]
