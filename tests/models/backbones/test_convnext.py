import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.runner import load_checkpoint

from remax_mm.models.backbones.convnext import ConvNeXtBlock, KMaXConvNeXt, rename_imagenet_weights
from tests.reference_weights import reference_state_dict

PARAMETERS = dict(tiny=27_818_592, small=49_453_152, base=87_564_416, large=196_227_264)
DEPTHS = (3, 3, 9, 3)
CHANNELS = (96, 192, 384, 768)


@pytest.fixture(scope='module')
def backbone():
    torch.manual_seed(0)
    return KMaXConvNeXt('tiny').eval()


@pytest.mark.parametrize('arch', PARAMETERS)
def test_convnext__parameters_of_deeplab2(arch):
    with torch.device('meta'):
        model = KMaXConvNeXt(arch)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[arch]


def test_convnext__reference_numbers(backbone, reference_dir):
    weights = backbone.state_dict()
    model = _empty().eval()
    names = {key: f'backbone.{key}' for key in weights}
    model.load_state_dict(reference_state_dict(names, weights))
    reference = np.load(reference_dir / 'backbone_convnext_tiny.npz')
    with torch.no_grad():
        features = model(torch.from_numpy(reference['image']))
    for name, feature in zip(('res2', 'res3', 'res4', 'res5'), features):
        # The float32 rounding error of the reference is 1.2e-6.
        torch.testing.assert_close(feature, torch.from_numpy(reference[name]), rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize('size', [(65, 97), (64, 64), (75, 42)])
def test_convnext__sizes(backbone, size):
    with torch.no_grad():
        features = backbone(torch.rand(1, 3, *size))
    expected = [tuple((length - 1) // stride + 1 for length in size) for stride in (4, 8, 16, 32)]
    assert [tuple(f.shape) for f in features] == [(1, width, *s) for width, s in zip(CHANNELS, expected)]


def test_convnext__block_by_hand():
    block = ConvNeXtBlock(96).eval()
    torch.nn.init.normal_(block.gamma)
    x = torch.randn(2, 96, 5, 3)
    pixels = F.conv2d(F.pad(x, (3, 3, 3, 3)), block.dwconv.weight, block.dwconv.bias, groups=96)
    pixels = pixels.flatten(2).transpose(1, 2)
    mean, variance = pixels.mean(-1, keepdim=True), pixels.var(-1, unbiased=False, keepdim=True)
    pixels = (pixels - mean) / (variance + 1e-6).sqrt() * block.norm.weight + block.norm.bias
    hidden = pixels @ block.pwconv1.weight.T + block.pwconv1.bias
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    branch = block.gamma * (hidden @ block.pwconv2.weight.T + block.pwconv2.bias)
    torch.testing.assert_close(block(x), x + branch.transpose(1, 2).reshape(x.shape))


def test_convnext__initialization(backbone):
    block = backbone.stages[2][4]
    assert torch.equal(block.gamma, torch.full((384, ), 1e-6))
    # 0.8796 is the std of a standard normal distribution truncated at 2.
    assert block.pwconv1.weight.std().item() == pytest.approx(0.02 * 0.8796, rel=0.02)
    assert not block.pwconv1.bias.any()


def test_convnext__drop_path_rates():
    with torch.device('meta'):
        model = KMaXConvNeXt('tiny', drop_path_rate=0.3)
    rates = [block.drop_path.drop_prob for stage in model.stages for block in stage]
    assert rates == pytest.approx([0.3 * i / 17 for i in range(18)])


def test_convnext_block__drop_path_keeps_the_shortcut():
    block = ConvNeXtBlock(16, drop_path_rate=1 - 1e-6).train()
    torch.nn.init.ones_(block.gamma)
    x = torch.randn(2, 16, 3, 3)
    assert torch.equal(block(x), x)
    assert not torch.equal(block.eval()(x), x)


def test_convnext__with_stem(backbone):
    model = _empty(with_stem=True).eval()
    model.load_state_dict(backbone.state_dict())
    image = torch.rand(1, 3, 33, 65)
    with torch.no_grad():
        without_stem, (stem, *others) = backbone(image), model(image)
    assert len(others) == 4 and all(torch.equal(a, b) for a, b in zip(others, without_stem))

    # A linear map of patches of 4x4 pixels, the first one with one row and column of padding, and a norm.
    conv, norm = model.downsample_layers[0]
    pixels = F.conv2d(F.pad(image, (1, 2, 1, 2)), conv.weight, conv.bias, stride=4).permute(0, 2, 3, 1)
    expected = F.layer_norm(pixels, (96, ), norm.weight, norm.bias, 1e-6).permute(0, 3, 1, 2)
    assert stem.shape == (1, 96, 9, 17)
    torch.testing.assert_close(stem, expected)


def test_convnext__every_parameter_gets_a_gradient():
    model = KMaXConvNeXt('tiny', drop_path_rate=0.1).train()
    sum(feature.square().mean() for feature in model(torch.rand(2, 3, 33, 33))).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_convnext__unknown_arch():
    with pytest.raises(ValueError, match="Expected `arch` of KMaXConvNeXt to be .*'tiny'.* but got 'huge'"):
        KMaXConvNeXt('huge')


def test_rename_imagenet_weights__all_names(release, backbone):
    renamed = rename_imagenet_weights(release)
    own = backbone.state_dict()
    assert {key: value.shape for key, value in renamed.items()} == {key: v.shape for key, v in own.items()}
    # The values tell which layer each weight belongs to.
    for key, value in renamed.items():
        assert value.flatten()[0] == _number(key), key


def test_convnext__loads_imagenet_weights(release, tmp_path):
    # Only files of facebookresearch/ConvNeXt have the weights in an entry `model`.
    nested = 'head.weight' in release and 'norm.weight' in release
    torch.save(dict(model=release) if nested else release, tmp_path / 'convnext.pth')
    model = _empty(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'convnext.pth')))
    model.init_weights()
    for key, value in model.state_dict().items():
        assert value.flatten()[0] == _number(key), key


def test_convnext__loads_weights_with_a_prefix(backbone, release):
    outer = torch.nn.ModuleDict(dict(backbone=_empty()))
    outer.load_state_dict({f'backbone.{key}': value for key, value in backbone.state_dict().items()})
    for ours, theirs in zip(outer.parameters(), backbone.parameters()):
        assert torch.equal(ours, theirs)

    outer.load_state_dict({f'backbone.{key}': value for key, value in release.items()})
    assert outer['backbone'].stages[2][8].gamma[0] == _number('stages.2.8.gamma')


def test_convnext__weights_of_another_arch(release, tmp_path):
    torch.save(release, tmp_path / 'tiny.pth')
    with torch.device('meta'):
        model = KMaXConvNeXt('small')
    with pytest.raises(
            ValueError, match="ConvNeXt with arch='small', but 162 of them do not fit.*is missing"):
        load_checkpoint(model, str(tmp_path / 'tiny.pth'))

    stem = next(iter(release))
    torch.save({**release, stem: release[stem][:1]}, tmp_path / 'wrong_shape.pth')
    with torch.device('meta'):
        model = KMaXConvNeXt('tiny')
    with pytest.raises(
            ValueError, match=r'1 of them do not fit, .*shape \(1, 3, 4, 4\) instead of \(96, 3, 4, 4\)'):
        load_checkpoint(model, str(tmp_path / 'wrong_shape.pth'))


def test_convnext__weights_of_another_network():
    with torch.device('meta'):
        model = KMaXConvNeXt('tiny')
    with pytest.raises(ValueError, match='do not fit'):
        model.load_state_dict({'features.0.0.weight': torch.zeros(16, 3, 3, 3)}, strict=False)


def _empty(**kwargs):
    """ConvNeXt-T with uninitialized weights, which saves time."""
    with torch.device('meta'):
        model = MODELS.build(dict(type='KMaXConvNeXt', arch='tiny', **kwargs))
    return model.to_empty(device='cpu')


def _number(key):
    """A number that identifies a parameter by its position in the network."""
    parts = key.split('.')
    kinds = ('dwconv', 'norm', 'pwconv1', 'pwconv2', 'gamma')
    if parts[0] == 'stages':
        position = 1000 + 100 * int(parts[1]) + int(parts[2]) + 0.125 * kinds.index(parts[3])
    else:
        position = 10 * int(parts[1]) + int(parts[2])
    return position + (0.0625 if parts[-1] == 'bias' else 0)


def _filled(shape, key):
    return torch.full(shape, _number(key))


def _blocks():
    """Stage, index, weight shapes (with names of facebookresearch/ConvNeXt) and channels of each block."""
    for stage, (depth, width) in enumerate(zip(DEPTHS, CHANNELS)):
        layers = dict(
            dwconv=(width, 1, 7, 7), norm=(width, ), pwconv1=(4 * width, width), pwconv2=(width, 4 * width))
        yield from ((stage, block, layers, width) for block in range(depth))


def _layer(name, shape, key):
    return {
        f'{name}.weight': _filled(shape, f'{key}.weight'),
        f'{name}.bias': _filled(shape[:1], f'{key}.bias')
    }


def _downsampling(name):
    """Weights of the stem and of the downsampling layers; ``name(i)`` is the name of the i-th layer."""
    weights = {
        **_layer(f'{name(0)}.0', (96, 3, 4, 4), 'downsample_layers.0.0'),
        **_layer(f'{name(0)}.1', (96, ), 'downsample_layers.0.1')
    }
    for i in (1, 2, 3):
        weights.update(_layer(f'{name(i)}.0', (CHANNELS[i - 1], ), f'downsample_layers.{i}.0'))
        weights.update(
            _layer(f'{name(i)}.1', (CHANNELS[i], CHANNELS[i - 1], 2, 2), f'downsample_layers.{i}.1'))
    return weights


def _facebook_weights():
    weights = _downsampling(lambda i: f'downsample_layers.{i}')
    for stage, block, layers, width in _blocks():
        name = f'stages.{stage}.{block}'
        weights[f'{name}.gamma'] = _filled((width, ), f'{name}.gamma')
        for layer, shape in layers.items():
            weights.update(_layer(f'{name}.{layer}', shape, f'{name}.{layer}'))
    weights.update({f'norm.{part}': torch.zeros(768) for part in ('weight', 'bias')})
    return {**weights, 'head.weight': torch.zeros(10, 768), 'head.bias': torch.zeros(10)}


def _torchvision_weights():
    weights = _downsampling(lambda i: f'features.{2 * i}')
    for stage, block, layers, width in _blocks():
        name, ours = f'features.{2 * stage + 1}.{block}', f'stages.{stage}.{block}'
        weights[f'{name}.layer_scale'] = _filled((width, 1, 1), f'{ours}.gamma')
        # 1 is a permutation, 4 a GELU.
        for number, (layer, shape) in zip((0, 2, 3, 5), layers.items()):
            weights.update(_layer(f'{name}.block.{number}', shape, f'{ours}.{layer}'))
    weights.update({f'classifier.0.{part}': torch.zeros(768) for part in ('weight', 'bias')})
    return {**weights, 'classifier.2.weight': torch.zeros(10, 768), 'classifier.2.bias': torch.zeros(10)}


def _timm_weights():
    weights = _downsampling(lambda i: f'stages.{i}.downsample' if i else 'stem')
    names = dict(dwconv='conv_dw', norm='norm', pwconv1='mlp.fc1', pwconv2='mlp.fc2')
    for stage, block, layers, width in _blocks():
        name, ours = f'stages.{stage}.blocks.{block}', f'stages.{stage}.{block}'
        weights[f'{name}.gamma'] = _filled((width, ), f'{ours}.gamma')
        for layer, shape in layers.items():
            weights.update(_layer(f'{name}.{names[layer]}', shape, f'{ours}.{layer}'))
    weights.update({f'head.norm.{part}': torch.zeros(768) for part in ('weight', 'bias')})
    return {**weights, 'head.fc.weight': torch.zeros(10, 768), 'head.fc.bias': torch.zeros(10)}


@pytest.fixture(scope='module', params=[_facebook_weights, _torchvision_weights, _timm_weights])
def release(request):
    """Weights of ConvNeXt-T with the names and shapes of each of three public releases."""
    return request.param()
