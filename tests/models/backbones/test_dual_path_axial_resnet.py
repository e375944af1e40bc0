import copy

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import nn

from remax_mm.models.backbones.axial_resnet import AxialResNet
from remax_mm.models.backbones.dual_path_axial_resnet import DualPathAxialResNet, StackedFusion
from remax_mm.models.layers import AxialBlock, BasicBlock, BottleneckBlock, ConvNormAct
from tests.random_statistics import randomize_norms

# Options of MaX-DeepLab-L (deeplab2, axial_resnet_instances.py); the defaults are those of S.
LARGE = dict(
    num_blocks=(3, 3, 6, 3, 3),
    channels=(32, 64, 128, 256, 512),
    stem_channels=(64, ),
    conv_block='basic',
    attention_expansion=4,
    first_dual_path_stage=4,
    dual_path_channels=512,
    memory_channels=512,
    inner_decoder_strides=(8, 4, 8, 16),
    decoder_strides=(8, 4, 8, 16, 8, 4),
    decoder_blocks=3,
    drop_path_stride=4)
NARROW = dict(num_slots=5, memory_channels=6, dual_path_channels=32, ffn_channels=10)
SMALL = dict(num_blocks=(1, 1, 2, 2), channels=(4, 6, 8, 16), stem_channels=(4, 4, 6), **NARROW)
SMALL_LARGE = {
    **LARGE, 'num_blocks': (1, 1, 2, 2, 2),
    'channels': (3, 4, 6, 8, 16),
    'stem_channels': (4, ),
    'decoder_blocks': 2,
    **NARROW
}
MODEL = dict(s=dict(), l=LARGE)
SMALL_MODEL = dict(s=SMALL, l=SMALL_LARGE)
PRETRAINED = ('stem', 'stages', 'inner_decoder')


def _meta(**options):
    with torch.device('meta'):
        return DualPathAxialResNet(**options)


def _groups(backbone):
    """All block groups, in the order of the forward pass."""
    return [
        *backbone.stages, *(step.blocks for step in backbone.inner_decoder), backbone.stage5_extra,
        *(step.blocks for step in backbone.decoder)
    ]


def _shapes(features):
    """Shapes of the mask feature, the semantic features and the slot embeddings, without the batch axis."""
    assert features.class_embedding.shape == features.mask_embedding.shape
    return (tuple(features.panoptic.shape[1:]), [tuple(feature.shape[1:]) for feature in features.semantic],
            tuple(features.mask_embedding.shape[1:]))


@pytest.mark.parametrize('size, parameters, pretrained', [('s', 61_726_624, 41_343_424),
                                                          ('l', 450_523_232, 175_115_392)])
def test_dual_path_axial_resnet__parameters_of_deeplab2(size, parameters, pretrained):
    # axial_resnet_instances_test.py: the whole encoder, and the part that is pretrained on ImageNet.
    backbone = _meta(**MODEL[size])
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    parts = [getattr(backbone, name) for name in PRETRAINED]
    assert sum(p.numel() for part in parts for p in part.parameters()) == pretrained


@pytest.mark.slow
@pytest.mark.parametrize('size, semantic, slots', [('s', (2048, 5, 5), 256), ('l', (256, 17, 17), 512)])
def test_dual_path_axial_resnet__shapes_of_deeplab2(size, semantic, slots):
    features = _meta(**MODEL[size]).eval()(torch.rand(1, 3, 65, 65, device='meta'))
    stages = [(256, 17, 17), (512, 9, 9), (1024, 5, 5)]
    assert _shapes(features) == ((256, 17, 17), [*stages, semantic], (slots, 128))


@pytest.mark.parametrize('size, semantic', [('s', (64, 5, 5)), ('l', (16, 17, 17))])
def test_dual_path_axial_resnet__shapes_of_small_models(size, semantic):
    # Channels are 4 times the base channels (4, 6, 8, 16). The last semantic feature of L has stride 4.
    features = _meta(**SMALL_MODEL[size]).eval()(torch.rand(1, 3, 65, 65, device='meta'))
    assert _shapes(features) == ((16, 17, 17), [(16, 17, 17), (24, 9, 9), (32, 5, 5), semantic], (6, 5))


def test_dual_path_axial_resnet__blocks_of_s():
    backbone = _meta()
    kinds = [[type(block) for block in stage] for stage in backbone.stages]
    assert kinds == [[BottleneckBlock] * 3, [BottleneckBlock] * 4, [BottleneckBlock] + [AxialBlock] * 5,
                     [AxialBlock] * 3]
    assert [type(block) for block in backbone.stage5_extra] == [AxialBlock]
    assert [(step.stride, [type(block) for block in step.blocks])
            for step in backbone.decoder] == [(8, [BottleneckBlock]), (4, [BottleneckBlock])]
    assert [step.blocks[0].reduce.conv.out_channels for step in backbone.decoder] == [128, 64]

    # Dual-path layers of width 256 follow the blocks of the last stage and the extra block, and no others.
    assert [len(group.dual_path_layers) for group in _groups(backbone)] == [0, 0, 0, 3, 1, 0, 0]
    assert [layer.pixel_projection.split_sizes
            for layer in backbone.dual_path_layers] == [(128, 128, 256)] * 4
    assert backbone.stages[3][0].attention.stride == 1  # the last stage has stride 16
    assert backbone.memory.shape == (256, 128)


def test_dual_path_axial_resnet__blocks_of_l():
    backbone = _meta(**LARGE)
    kinds = [[type(block) for block in stage] for stage in backbone.stages]
    assert kinds == [[BasicBlock] * 3, [BasicBlock] * 3, [BasicBlock] * 6, [BasicBlock] + [AxialBlock] * 2,
                     [AxialBlock] * 3]
    assert [block.second.conv.out_channels for stage in backbone.stages[:3]
            for block in stage] == [128] * 3 + [256] * 3 + [512] * 6
    # The key channels are twice the base channels (256 and 512), the value channels four times.
    assert backbone.stages[3][1].attention.height_axis.split_sizes == (512, 512, 1024)
    assert backbone.stages[4][0].attention.height_axis.split_sizes == (1024, 1024, 2048)

    # 13 layers: 3 of half the width in the stage before the last one, then 3, 1, 3 and 3.
    widths = [layer.pixel_projection.split_sizes[2] for layer in backbone.dual_path_layers]
    assert widths == [256] * 3 + [512] * 10
    steps = [(step.stride, len(step.blocks), len(step.blocks.dual_path_layers))
             for step in (*backbone.inner_decoder, *backbone.decoder)]
    assert steps == [(8, 1, 0), (4, 1, 0), (8, 1, 0), (16, 1, 1), (8, 3, 0), (4, 3, 0), (8, 3, 0), (16, 3, 3),
                     (8, 3, 0), (4, 3, 0)]
    assert len(backbone.stage5_extra) == len(backbone.stage5_extra.dual_path_layers) == 3


@pytest.mark.parametrize('size', SMALL_MODEL)
def test_dual_path_axial_resnet__groups_use_the_registered_layers(size):
    # Also in a deep copy, which hooks that average weights make.
    backbone = _meta(**SMALL_MODEL[size])
    for model in (backbone, copy.deepcopy(backbone)):
        used = [layer for group in _groups(model) for layer in group.dual_path_layers]
        assert used == list(model.dual_path_layers)
    assert not set(used) & set(backbone.modules())


@pytest.mark.parametrize('size, stages, decoders', [
    ('s', [[0.] * 3, [0.] * 4, [0.] + [.15] * 5, [.15, .2, .2]], [0., 0.]),
    ('l', [[0.] * 3, [0., .05, .05], [.05] + [.1] * 5, [.1, .15, .15], [.15, .2, .2]
           ], [.1, .05, .1, .2, .1, .05, .1, .2, .1, .05]),
])
def test_dual_path_axial_resnet__drop_path_rates(size, stages, decoders):
    # deeplab2: 0.2 * stage / 4 with stage = log2(input stride of the block) - 1, from stride 16 (S) or 4 (L).
    # For these rates the output of the last stage counts as stride 32, as in a ResNet.
    backbone = _meta(**MODEL[size], drop_path_rate=0.2)
    rates = [[block.drop_path.drop_prob for block in stage] for stage in backbone.stages]
    assert rates == [pytest.approx(expected) for expected in stages]
    for step, rate in zip((*backbone.inner_decoder, *backbone.decoder), decoders):
        assert [block.drop_path.drop_prob
                for block in step.blocks] == pytest.approx([rate] * len(step.blocks))
    assert {block.drop_path.drop_prob for block in backbone.stage5_extra} == {0.2}

    # Dual-path layers have the rate of the block before them.
    layers = [layer.drop_path.drop_prob for layer in backbone.dual_path_layers]
    expected = sum((rates for rates, group in zip(stages, backbone.stages) if group.dual_path_layers), [])
    assert layers == pytest.approx(expected + [.2] * (len(layers) - len(expected)))


def _run(group, x):
    """Blocks without dual-path layers."""
    for block in group:
        x = block(x)
    return x


def _run_both(group, x, memory, layers):
    """Blocks, each followed by the next one of ``layers``."""
    for block in group:
        x, memory = layers.pop(0)(block(x), memory)
    return x, memory


def _to(x, step, *earlier):
    """Fusion by hand: downsampling by a strided convolution, upsampling by interpolation."""
    activation, project = step.fuse.project
    if step.stride > 8 or x.shape[-1] > earlier[0].shape[-1]:
        assert project.conv.stride == (2, 2)
        return project(activation(x)) + sum(earlier)
    x = F.interpolate(project(activation(x)), earlier[0].shape[-2:], mode='bilinear', align_corners=True)
    return x + sum(earlier)


def _expect(features, panoptic, semantic, memory, backbone):
    torch.testing.assert_close(features.panoptic, panoptic.clamp(min=0))
    for ours, theirs in zip(features.semantic, semantic):
        torch.testing.assert_close(ours, theirs.clamp(min=0))
    torch.testing.assert_close(features.class_embedding, backbone.class_embedding(memory))
    torch.testing.assert_close(features.mask_embedding, backbone.mask_embedding(memory))


@torch.no_grad()
def test_dual_path_axial_resnet__forward_of_s_by_hand():
    backbone = randomize_norms(DualPathAxialResNet(**SMALL)).eval().double()
    image = torch.randn(2, 3, 33, 65, dtype=torch.float64)
    layers, memory = list(backbone.dual_path_layers), backbone.memory[None].repeat(2, 1, 1)
    res2 = _run(backbone.stages[0], backbone.stem(image))
    res3 = _run(backbone.stages[1], res2)
    res4 = _run(backbone.stages[2], res3)
    res5, memory = _run_both(backbone.stages[3], res4, memory, layers)
    x, memory = _run_both(backbone.stage5_extra, res5, memory, layers)
    assert not layers

    eighth, fourth = backbone.decoder
    x = _run(eighth.blocks, _to(x, eighth, res3))
    x = _run(fourth.blocks, _to(x, fourth, res2))
    _expect(backbone(image), x, (res2, res3, res4, res5), memory, backbone)


@torch.no_grad()
def test_dual_path_axial_resnet__forward_of_l_by_hand():
    """Each step adds the latest features of its stride, at most two (deeplab2, call_stacked_decoder)."""
    backbone = randomize_norms(DualPathAxialResNet(**SMALL_LARGE)).eval().double()
    image = torch.randn(1, 3, 33, 33, dtype=torch.float64)
    layers, memory = list(backbone.dual_path_layers), backbone.memory[None]
    first = _run(backbone.stages[0], backbone.stem(image))
    assert first.shape[-1] == 17  # stride 2
    res2 = _run(backbone.stages[1], first)
    res3 = _run(backbone.stages[2], res2)
    res4, memory = _run_both(backbone.stages[3], res3, memory, layers)
    res5, memory = _run_both(backbone.stages[4], res4, memory, layers)

    # Pretrained decoder, strides 16 -> 8 -> 4 -> 8 -> 16, and blocks at stride 16 that are not pretrained
    step = list(backbone.inner_decoder)
    a8 = _run(step[0].blocks, _to(res5, step[0], res3))
    a4 = _run(step[1].blocks, _to(a8, step[1], res2))
    b8 = _run(step[2].blocks, _to(a4, step[2], res3, a8))
    x, memory = _run_both(step[3].blocks, _to(b8, step[3], res5), memory, layers)
    b16, memory = _run_both(backbone.stage5_extra, x, memory, layers)

    # Decoder, strides 16 -> 8 -> 4 -> 8 -> 16 -> 8 -> 4
    step = list(backbone.decoder)
    c8 = _run(step[0].blocks, _to(b16, step[0], a8, b8))
    c4 = _run(step[1].blocks, _to(c8, step[1], res2, a4))
    d8 = _run(step[2].blocks, _to(c4, step[2], b8, c8))
    d16, memory = _run_both(step[3].blocks, _to(d8, step[3], res5, b16), memory, layers)
    e8 = _run(step[4].blocks, _to(d16, step[4], c8, d8))
    e4 = _run(step[5].blocks, _to(e8, step[5], a4, c4))
    assert not layers
    _expect(backbone(image), e4, (res2, res3, res4, c4), memory, backbone)


@torch.no_grad()
def test_stacked_fusion__downsampling_uses_every_second_pixel():
    fusion = randomize_norms(StackedFusion(3, 4, 2, dict(type='BN'), dict(type='ReLU'))).eval()
    x, earlier = torch.randn(1, 3, 9, 5), torch.randn(1, 4, 5, 3)
    project = ConvNormAct(3, 4, norm_cfg=dict(type='BN'), act=False).eval()
    project.load_state_dict(fusion.project[1].state_dict())
    expected = project(x.clamp(min=0))[..., ::2, ::2] + earlier
    torch.testing.assert_close(fusion(x, [earlier]), expected)


@torch.no_grad()
def test_stacked_fusion__equal_channels_are_only_resized():
    fusion = StackedFusion(3, 3, 1, dict(type='BN'), dict(type='ReLU'))
    assert not list(fusion.parameters())
    x, earlier = torch.randn(1, 3, 3, 5), torch.randn(1, 3, 5, 9)
    expected = F.interpolate(x, (5, 9), mode='bilinear', align_corners=True) + 2 * earlier
    torch.testing.assert_close(fusion(x, [earlier, earlier]), expected)


@torch.no_grad()
@pytest.mark.parametrize('size', SMALL_MODEL)
def test_dual_path_axial_resnet__permuted_slots(size):
    backbone = randomize_norms(DualPathAxialResNet(**SMALL_MODEL[size])).eval().double()
    image = torch.randn(1, 3, 33, 33, dtype=torch.float64)
    before = backbone(image)
    order = torch.randperm(5)
    backbone.memory.copy_(backbone.memory[:, order].clone())
    after = backbone(image)
    torch.testing.assert_close(after.panoptic, before.panoptic)
    torch.testing.assert_close(after.class_embedding, before.class_embedding[..., order])
    torch.testing.assert_close(after.mask_embedding, before.mask_embedding[..., order])


@torch.no_grad()
@pytest.mark.parametrize('shape', [(33, 65), (64, 32), (45, 70)])
@pytest.mark.parametrize('size', SMALL_MODEL)
def test_dual_path_axial_resnet__any_size(size, shape):
    features = DualPathAxialResNet(**SMALL_MODEL[size]).eval()(torch.rand(2, 3, *shape))
    assert features.panoptic.shape[-2:] == tuple((length - 1) // 4 + 1 for length in shape)


@pytest.mark.parametrize('size', SMALL_MODEL)
def test_dual_path_axial_resnet__gradients_of_both_paths(size):
    backbone = randomize_norms(DualPathAxialResNet(**SMALL_MODEL[size])).train()
    features = backbone(torch.rand(3, 3, 33, 33))
    parts = (features.panoptic, features.semantic[-1], features.class_embedding, features.mask_embedding)
    sum(part.square().mean() for part in parts).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())
    assert backbone.memory.grad.any()

    # The pixels depend on the memory and the memory on the pixels.
    backbone.zero_grad()
    image = torch.rand(2, 3, 33, 33, requires_grad=True)
    backbone(image).panoptic.square().mean().backward()
    assert backbone.memory.grad.any()
    image.grad = None
    backbone(image).mask_embedding.square().mean().backward()
    assert image.grad.any()


def test_dual_path_axial_resnet__initialization_of_the_memory():
    memory = DualPathAxialResNet(**{**SMALL, 'memory_channels': 256, 'num_slots': 128}).memory
    assert memory.abs().max() <= 2
    assert abs(memory.std().item() - 0.8796) < 0.01  # of a standard normal distribution truncated at 2


def test_dual_path_axial_resnet__loads_weights_of_an_axial_resnet(tmp_path):
    trained = randomize_norms(AxialResNet(num_blocks=(1, 1, 2, 2), channels=(8, 8, 8, 16)))
    torch.save(dict(state_dict=trained.state_dict()), tmp_path / 'a.pth')
    backbone = MODELS.build(
        dict(
            type='DualPathAxialResNet',
            init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth')),
            **{
                **SMALL, 'channels': (8, 8, 8, 16),
                'stem_channels': (64, 64, 128)
            }))
    backbone.init_weights()
    ours = {
        key: value
        for key, value in backbone.state_dict().items() if key.startswith(('stem.', 'stages.'))
    }
    assert ours.keys() == trained.state_dict().keys()
    for key, value in trained.state_dict().items():
        assert torch.equal(ours[key], value), key


@pytest.mark.parametrize('size', SMALL_MODEL)
def test_dual_path_axial_resnet__norm_cfg_and_act_cfg(size):
    modules = list(
        DualPathAxialResNet(**SMALL_MODEL[size], norm_cfg=dict(type='GN', num_groups=32)).modules())
    assert any(isinstance(module, nn.ReLU) for module in modules)
    assert not any(isinstance(module, (nn.GELU, nn.modules.batchnorm._BatchNorm)) for module in modules)
    modules = list(DualPathAxialResNet(**SMALL_MODEL[size], act_cfg=dict(type='GELU')).modules())
    assert not any(isinstance(module, nn.ReLU) for module in modules)


@pytest.mark.parametrize('wrong, message', [
    (dict(num_blocks=(1, 1, 1)), '4 or 5 stages'),
    (dict(num_blocks=(1, 1, 0, 1)), 'at least one block'),
    (dict(conv_block='axial'), r"among \['basic', 'bottleneck'\], but got 'axial'"),
    (dict(decoder_strides=(8, )), r'`decoder_strides` .* to 4, .* but got \(8,\)'),
    (dict(decoder_strides=(4, )), r'`decoder_strides` .* factors of 2'),
    (dict(decoder_strides=(8, 4, 2, 4)), '`decoder_strides` .* between 4 and 16'),
    (dict(inner_decoder_strides=(8, 4)), r'`inner_decoder_strides` .* to 16, .* but got \(8, 4\)'),
    (dict(dual_path_channels=20), 'multiple of twice its number of heads, 16, but got 20'),
    (dict(first_dual_path_stage=16), '`first_dual_path_stage` .* at most 5, but got 16'),
])
def test_dual_path_axial_resnet__invalid_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        DualPathAxialResNet(**{**SMALL, **wrong})
