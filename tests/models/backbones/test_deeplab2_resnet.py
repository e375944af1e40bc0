import pytest
import torch
import torch.nn.functional as F
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS

from remax_mm.models.backbones.deeplab2_resnet import DeepLab2ResNet
from tests.random_statistics import randomize_norms


@pytest.fixture(scope='module')
def backbone():
    torch.manual_seed(0)
    backbone = randomize_norms(DeepLab2ResNet())
    backbone.eval()
    return backbone


def test_deeplab2_resnet__parameters_and_sizes_of_deeplab2(backbone):
    assert sum(p.numel() for p in backbone.parameters()) == 23_508_032
    with torch.no_grad():
        features = backbone(torch.rand(1, 3, 65, 97))
    sizes = [(17, 25), (9, 13), (5, 7), (3, 4)]
    assert [tuple(f.shape) for f in features] == [(1, w, *s) for w, s in zip((256, 512, 1024, 2048), sizes)]


def test_deeplab2_resnet__forward_by_hand(backbone):
    """The forward pass written with functions, in the order of operations of deeplab2's AxialResNet."""
    weights = backbone.state_dict()

    def conv_bn(x, conv, norm, stride=1):
        weight = weights[f'{conv}.weight']
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        scale = weights[f'{norm}.weight'] / (weights[f'{norm}.running_var'] + 1e-3).sqrt()
        shift = weights[f'{norm}.bias'] - weights[f'{norm}.running_mean'] * scale
        return x * scale[:, None, None] + shift[:, None, None]

    image = torch.randn(1, 3, 33, 65)
    x = conv_bn(image, 'conv1', 'bn1', stride=2)
    expected = [x]
    for stage, depth in enumerate((3, 4, 6, 3), start=1):
        for index in range(depth):
            block, stride = f'layer{stage}.{index}', 2 if index == 0 else 1
            x = F.relu(x)
            shortcut = x if index else conv_bn(x, f'{block}.downsample.0', f'{block}.downsample.1', stride)
            y = F.relu(conv_bn(x, f'{block}.conv1', f'{block}.bn1'))
            y = F.relu(conv_bn(y, f'{block}.conv2', f'{block}.bn2', stride))
            x = shortcut + conv_bn(y, f'{block}.conv3', f'{block}.bn3')
        expected.append(x)

    with_stem = DeepLab2ResNet(with_stem=True)
    with_stem.eval()
    with_stem.load_state_dict(weights)
    with torch.no_grad():
        features = with_stem(image)
        assert len(features) == 5
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(backbone(image), features[1:]))
        for ours, theirs in zip(features, expected):
            assert ours.min() < 0  # not activated
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_deeplab2_resnet__names_and_shapes_of_mmdet(backbone):
    theirs = ResNet(50).state_dict()
    assert {name: value.shape for name, value in backbone.state_dict().items()} == \
        {name: value.shape for name, value in theirs.items()}


def test_deeplab2_resnet__residual_branches_start_at_zero():
    backbone = MODELS.build(dict(type='DeepLab2ResNet'))
    backbone.init_weights()
    for name, norm in backbone.named_modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            assert norm.eps == 1e-3 and norm.momentum == 0.01
            assert (norm.weight == (0 if name.endswith('bn3') else 1)).all(), name


def test_deeplab2_resnet__every_parameter_gets_a_gradient():
    backbone = randomize_norms(DeepLab2ResNet())
    backbone.train()
    assert all(module.training for module in backbone.modules())
    sum(feature.square().mean() for feature in backbone(torch.rand(2, 3, 33, 33))).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in backbone.parameters())
