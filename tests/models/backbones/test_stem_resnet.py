import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS

from remax_mm.models.backbones.stem_resnet import FEATURES, StemResNet
from tests.random_statistics import randomize_norms

STRIDES = dict(stem=2, pooled_stem=4, res2=4, res3=8, res4=16, res5=32)


def _backbone(**options):
    # Depth 18 instead of 50 saves time.
    backbone = randomize_norms(StemResNet(18, **options))
    backbone.eval()  # mmdet's ResNet.train returns None
    return backbone


def test_stem_resnet__stages_of_resnet_and_stem_by_hand():
    ours = _backbone(out_features=FEATURES)
    theirs = MODELS.build(dict(type='ResNet', depth=18))
    theirs.eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    image = torch.randn(2, 3, 65, 97)
    with torch.no_grad():
        stem, pooled, *stages = ours(image)
        expected = theirs(image)
    for a, b in zip(stages, expected):
        assert torch.equal(a, b)

    # Stem: 7x7 convolution, batch norm and ReLU; then the maximum of each 3x3 window.
    norm, x = ours.bn1, F.conv2d(image, ours.conv1.weight, stride=2, padding=3)
    x = (x - norm.running_mean[:, None, None]) / (norm.running_var + norm.eps)[:, None, None].sqrt()
    x = (x * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
    torch.testing.assert_close(stem, x)
    padded = F.pad(x, (1, 1, 1, 1))
    windows = [padded[..., i:i + 33:2, j:j + 49:2] for i in range(3) for j in range(3)]
    torch.testing.assert_close(pooled, torch.stack(windows).amax(0))


@pytest.mark.parametrize('size', [(65, 97), (64, 33)])
def test_stem_resnet__strides(size):
    with torch.no_grad():
        features = _backbone(out_features=FEATURES)(torch.randn(1, 3, *size))
    for name, feature in zip(FEATURES, features):
        expected = tuple((side - 1) // STRIDES[name] + 1 for side in size)
        assert tuple(feature.shape[2:]) == expected, name


@pytest.mark.parametrize('names', [('stem', 'res2', 'res3', 'res4', 'res5'),
                                   ('res2', 'pooled_stem', 'res3', 'res4', 'res5'), ('res5', 'stem')])
def test_stem_resnet__order_of_out_features(names):
    every, some = _backbone(out_features=FEATURES), _backbone(out_features=names)
    some.load_state_dict(every.state_dict())
    image = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        by_name = dict(zip(FEATURES, every(image)))
        features = some(image)
    assert len(features) == len(names)
    assert all(torch.equal(feature, by_name[name]) for feature, name in zip(features, names))


def test_stem_resnet__deep_stem():
    backbone = _backbone(deep_stem=True)
    image = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        assert torch.equal(backbone(image)[0], backbone.stem(image))


def test_stem_resnet__options_of_resnet():
    with torch.device('meta'):
        backbone = MODELS.build(dict(type='StemResNet', depth=50, norm_eval=False, frozen_stages=0))
    # Parameters of ResNet-50 in deeplab2
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 23_508_032
    backbone.train()
    assert not backbone.bn1.training and backbone.layer1[0].bn1.training
    assert not backbone.conv1.weight.requires_grad and backbone.layer1[0].conv1.weight.requires_grad


@pytest.mark.parametrize('names', [('stem', 'res6'), (), 'stem'])
def test_stem_resnet__unknown_features(names):
    with pytest.raises(ValueError, match="among .*'stem', 'pooled_stem', 'res2'.* but got"):
        StemResNet(18, out_features=names)
