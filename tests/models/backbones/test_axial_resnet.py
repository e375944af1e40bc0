import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import nn

from remax_mm.models.backbones.axial_resnet import AxialResNet, drop_path_rate_at
from remax_mm.models.layers import AxialBlock, BottleneckBlock
from tests.random_statistics import randomize_norms

SMALL = dict(num_blocks=(1, 1, 2, 2), channels=(8, 16, 24, 32))


def test_axial_resnet__parameters_and_sizes_of_deeplab2():
    # deeplab2 counts MaX-S without the memory path; its test has size 5 at stride 16 for size 65.
    with torch.device('meta'):
        backbone = AxialResNet()
        features = backbone.eval()(torch.rand(1, 3, 65, 97))
    assert sum(p.numel() for p in backbone.parameters()) == 41_343_424
    sizes = [(17, 25), (9, 13), (5, 7), (3, 4)]
    assert [tuple(f.shape) for f in features] == [(1, w, *s) for w, s in zip((256, 512, 1024, 2048), sizes)]


def test_axial_resnet__block_types():
    with torch.device('meta'):
        stages = AxialResNet().stages
    kinds = [[type(block) for block in stage] for stage in stages]
    assert kinds == [[BottleneckBlock] * 3, [BottleneckBlock] * 4, [BottleneckBlock] + [AxialBlock] * 5,
                     [AxialBlock] * 3]
    assert [block.attention.stride for block in stages[3]] == [2, 1, 1]
    assert stages[3][0].attention.height_axis.split_sizes == (512, 512, 1024)


@pytest.mark.parametrize('size', [(33, 65), (64, 32), (45, 70)])
def test_axial_resnet__any_size(size):
    backbone = AxialResNet(**SMALL).eval()
    with torch.no_grad():
        features = backbone(torch.rand(2, 3, *size))
    expected = [tuple((length - 1) // stride + 1 for length in size) for stride in (4, 8, 16, 32)]
    assert [tuple(f.shape) for f in features] == [(2, w, *s) for w, s in zip((32, 64, 96, 128), expected)]


def test_axial_resnet__forward_by_hand():
    """The forward pass written with functions, in the order of operations of deeplab2's blocks."""
    backbone = randomize_norms(AxialResNet(**SMALL)).eval().double()
    image = torch.randn(1, 3, 33, 33, dtype=torch.float64)

    def conv(x, layer, stride=1, act=True):
        weight = layer.conv.weight
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        norm = layer.norm
        x = (x - norm.running_mean[:, None, None]) / (norm.running_var + 1e-3)[:, None, None].sqrt()
        x = x * norm.weight[:, None, None] + norm.bias[:, None, None]
        return F.gelu(x) if act else x

    x = conv(image, backbone.stem[0], stride=2)
    x = conv(conv(x, backbone.stem[1]), backbone.stem[2], act=False)
    expected = []
    for stage in backbone.stages:
        for index, block in enumerate(stage):
            stride = 2 if index == 0 else 1
            x = F.gelu(x)
            shortcut = x if isinstance(block.shortcut, nn.Identity) else conv(
                x, block.shortcut, stride, False)
            y = conv(x, block.reduce)
            if isinstance(block, BottleneckBlock):
                y = conv(y, block.spatial, stride)
            else:
                columns = [block.attention.height_axis(y[..., i]) for i in range(y.shape[3])]
                y = torch.stack(columns, dim=3)[:, :, ::stride]
                rows = [block.attention.width_axis(y[:, :, i]) for i in range(y.shape[2])]
                y = F.gelu(torch.stack(rows, dim=2)[..., ::stride])
            x = shortcut + conv(y, block.expand, act=False)
        expected.append(x)

    with torch.no_grad():
        for ours, theirs in zip(backbone(image), expected):
            torch.testing.assert_close(ours, theirs.detach())


def test_axial_resnet__features_are_not_activated():
    features = randomize_norms(AxialResNet(**SMALL)).eval()(torch.randn(1, 3, 65, 65))
    assert all(feature.min() < -0.2 for feature in features)  # GELU stays above -0.17


@pytest.mark.parametrize('stride, rate', [(2, 0.), (4, 0.), (8, 0.), (16, 0.15), (32, 0.2)])
def test_drop_path_rate_at(stride, rate):
    # deeplab2: linear over four stages, with stage log2(stride) - 1, and 0 below stride 16.
    assert drop_path_rate_at(stride, 0.2) == pytest.approx(rate)


def test_axial_resnet__drop_path_rates():
    with torch.device('meta'):
        stages = AxialResNet(drop_path_rate=0.2).stages
    rates = [[block.drop_path.drop_prob for block in stage] for stage in stages]
    assert rates[0] == [0.] * 3 and rates[1] == [0.] * 4
    assert rates[2] == pytest.approx([0.] + [0.15] * 5)
    assert rates[3] == pytest.approx([0.15, 0.2, 0.2])


def test_axial_resnet__with_stem():
    """The output of the stem: 128 channels at stride 2, not activated, like stage 1 of deeplab2's encoder."""
    plain, with_stem = AxialResNet(**SMALL).eval(), AxialResNet(**SMALL, with_stem=True).eval()
    with_stem.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 33, 65)
    with torch.no_grad():
        stem, *others = with_stem(image)
        expected = plain(image)
        assert torch.equal(stem, plain.stem(image)) and stem.shape == (1, 128, 17, 33)
    assert len(others) == 4 and all(torch.equal(a, b) for a, b in zip(others, expected))


def test_axial_resnet__norm_cfg():
    norms = [m for m in AxialResNet(**SMALL).modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(norm.eps == 1e-3 and norm.momentum == 0.01 for norm in norms)
    grouped = AxialResNet(**SMALL, norm_cfg=dict(type='GN', num_groups=32))
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in grouped.modules())


def test_axial_resnet__every_parameter_gets_a_gradient():
    backbone = randomize_norms(AxialResNet(**SMALL, drop_path_rate=0.1)).train()
    sum(feature.square().mean() for feature in backbone(torch.rand(3, 3, 65, 65))).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in backbone.parameters())


def test_axial_resnet__loads_a_checkpoint(tmp_path):
    trained = randomize_norms(AxialResNet(**SMALL))
    torch.save(
        dict(state_dict={
            f'backbone.{k}': v
            for k, v in trained.state_dict().items()
        }), tmp_path / 'a.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'), prefix='backbone.')
    backbone = MODELS.build(dict(type='AxialResNet', **SMALL, init_cfg=init_cfg))
    backbone.init_weights()
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, trained.state_dict()[key]), key


@pytest.mark.parametrize('wrong', [
    dict(num_blocks=(1, 1, 1)),
    dict(channels=(8, 8, 8, 8, 8)),
    dict(num_blocks=(1, 1, 0, 1)),
])
def test_axial_resnet__invalid_stages(wrong):
    with pytest.raises(ValueError, match='Expected `.*` of AxialResNet for 4 stages .* but got'):
        AxialResNet(**{**SMALL, **wrong})
