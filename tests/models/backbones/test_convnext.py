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
def test_convnext__parameters_of_the_reference(arch):
    with torch.device('meta'):
        model = KMaXConvNeXt(arch)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[arch]


def test_convnext__is_the_reference(backbone, reference_dir):
    weights = backbone.state_dict()
    model = _empty().eval()
    names = {key: f'backbone.{key}' for key in weights}
    model.load_state_dict(reference_state_dict(names, weights))
    reference = np.load(reference_dir / 'backbone_convnext_tiny.npz')
    with torch.no_grad():
        features = model(torch.from_numpy(reference['image']))
    for name, feature in zip(('res2', 'res3', 'res4', 'res5'), features):
        # The reference's own float32 error is 1.2e-6.
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


def test_convnext__starts_with_small_branches(backbone):
    block = backbone.stages[2][4]
    assert torch.equal(block.gamma, torch.full((384, ), 1e-6))
    assert block.pwconv1.weight.std().item() == pytest.approx(
        0.02 * 0.8796, rel=0.02)  # cut at two deviations
    assert not block.pwconv1.bias.any()


def test_convnext__drop_path_grows_linearly():
    with torch.device('meta'):
        model = KMaXConvNeXt('tiny', drop_path_rate=0.3)
    rates = [block.drop_path.drop_prob for stage in model.stages for block in stage]
    assert rates == pytest.approx([0.3 * i / 17 for i in range(18)])


def test_convnext__drop_path_drops_the_branch_only():
    block = ConvNeXtBlock(16, drop_path_rate=1 - 1e-6).train()
    torch.nn.init.ones_(block.gamma)
    x = torch.randn(2, 16, 3, 3)
    assert torch.equal(block(x), x)
    assert not torch.equal(block.eval()(x), x)


def test_convnext__returns_what_is_asked_for(backbone):
    model = _empty(out_indices=(1, 3)).eval()
    model.load_state_dict(backbone.state_dict())
    image = torch.rand(1, 3, 33, 33)
    with torch.no_grad():
        every, some = backbone(image), model(image)
    assert torch.equal(some[0], every[1]) and torch.equal(some[1], every[3]) and len(some) == 2


def test_convnext__stem_comes_first(backbone):
    model = _empty(out_indices=(0, 3), with_stem=True).eval()
    model.load_state_dict(backbone.state_dict())
    image = torch.rand(1, 3, 33, 65)
    with torch.no_grad():
        every, (stem, first, last) = backbone(image), model(image)
    assert torch.equal(first, every[0]) and torch.equal(last, every[3])

    # Patches of 4x4 pixels, from one pixel outside the image on, and the norm of each.
    conv, norm = model.downsample_layers[0]
    pixels = F.conv2d(F.pad(image, (1, 2, 1, 2)), conv.weight, conv.bias, stride=4).permute(0, 2, 3, 1)
    expected = F.layer_norm(pixels, (96, ), norm.weight, norm.bias, 1e-6).permute(0, 3, 1, 2)
    assert stem.shape == (1, 96, 9, 17)
    torch.testing.assert_close(stem, expected)


def test_convnext__every_parameter_learns():
    model = KMaXConvNeXt('tiny', drop_path_rate=0.1).train()
    sum(feature.square().mean() for feature in model(torch.rand(2, 3, 33, 33))).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize('wrong, what', [(dict(arch='huge'), 'arch'),
                                         (dict(arch='tiny', out_indices=(1, 4)), 'out_indices')])
def test_convnext__says_what_is_wrong(wrong, what):
    with pytest.raises(ValueError, match=f'Expected `{what}` of KMaXConvNeXt to be .* but got'):
        KMaXConvNeXt(**wrong)


def test_rename_imagenet_weights__names_every_weight_once(release, backbone):
    renamed = rename_imagenet_weights(release)
    own = backbone.state_dict()
    assert {key: value.shape for key, value in renamed.items()} == {key: v.shape for key, v in own.items()}
    # A number of the layer, written into its weights, must arrive where the forward uses it.
    for key, value in renamed.items():
        assert value.flatten()[0] == _mark(key), key


def test_convnext__initializes_from_a_file(release, tmp_path):
    # facebookresearch/ConvNeXt saves the weights under `model`, the others at the top.
    nested = 'head.weight' in release and 'norm.weight' in release
    torch.save(dict(model=release) if nested else release, tmp_path / 'convnext.pth')
    model = _empty(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'convnext.pth')))
    model.init_weights()
    for key, value in model.state_dict().items():
        assert value.flatten()[0] == _mark(key), key


def test_convnext__loads_its_own_weights_inside_a_larger_model(backbone, release):
    outer = torch.nn.ModuleDict(dict(backbone=_empty()))
    outer.load_state_dict({f'backbone.{key}': value for key, value in backbone.state_dict().items()})
    for ours, theirs in zip(outer.parameters(), backbone.parameters()):
        assert torch.equal(ours, theirs)

    outer.load_state_dict({f'backbone.{key}': value for key, value in release.items()})
    assert outer['backbone'].stages[2][8].gamma[0] == _mark('stages.2.8.gamma')


def test_convnext__rejects_another_architecture(release, tmp_path):
    torch.save(release, tmp_path / 'tiny.pth')
    with torch.device('meta'):
        model = KMaXConvNeXt('small')
    with pytest.raises(ValueError, match="ConvNeXt of arch='small', but 162 of them do not fit.*is missing"):
        load_checkpoint(model, str(tmp_path / 'tiny.pth'))

    stem = next(iter(release))
    torch.save({**release, stem: release[stem][:1]}, tmp_path / 'misshapen.pth')
    with torch.device('meta'):
        model = KMaXConvNeXt('tiny')
    with pytest.raises(
            ValueError, match=r'1 of them do not fit, .*\(1, 3, 4, 4\) instead of \(96, 3, 4, 4\)'):
        load_checkpoint(model, str(tmp_path / 'misshapen.pth'))


def test_convnext__rejects_another_network():
    with torch.device('meta'):
        model = KMaXConvNeXt('tiny')
    with pytest.raises(ValueError, match='do not fit'):
        model.load_state_dict({'features.0.0.weight': torch.zeros(16, 3, 3, 3)}, strict=False)


def _empty(**kwargs):
    """ConvNeXt-T without the time that its initialization takes."""
    with torch.device('meta'):
        model = MODELS.build(dict(type='KMaXConvNeXt', arch='tiny', **kwargs))
    return model.to_empty(device='cpu')


def _mark(key):
    """A number for a parameter here, by its place in the network."""
    parts = key.split('.')
    kinds = ('dwconv', 'norm', 'pwconv1', 'pwconv2', 'gamma')
    if parts[0] == 'stages':
        place = 1000 + 100 * int(parts[1]) + int(parts[2]) + 0.125 * kinds.index(parts[3])
    else:
        place = 10 * int(parts[1]) + int(parts[2])
    return place + (0.0625 if parts[-1] == 'bias' else 0)


def _filled(shape, key):
    return torch.full(shape, _mark(key))


def _blocks():
    """Place of each block, its layers with their shapes by the names of facebookresearch/ConvNeXt."""
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
    """Stem and downsampling layers, ``name(i)`` being what the i-th is called."""
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
        # The numbers between are a permutation and a GELU.
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
    """Weights of ConvNeXt-T by the names and shapes of three public releases."""
    return request.param()
