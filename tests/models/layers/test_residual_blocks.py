import pytest
import torch
import torch.nn.functional as F
from torch import nn

from remax_mm.models.layers import AxialBlock, BasicBlock, BottleneckBlock
from tests.random_statistics import randomize_norms

BLOCKS = [BottleneckBlock, AxialBlock]


def _branch(block, x):
    """The residual branch of a block."""
    if isinstance(block, BasicBlock):
        return block.second(block.first(x))
    x = block.reduce(x)
    x = F.gelu(block.attention(x)) if isinstance(block, AxialBlock) else block.spatial(x)
    return block.expand(x)


@pytest.mark.parametrize('kind', BLOCKS)
def test_block__forward_by_hand(kind):
    x = torch.randn(2, 32, 5, 3)
    same = randomize_norms(kind(32, 8)).eval()
    torch.testing.assert_close(same(x), F.gelu(x) + _branch(same, F.gelu(x)))

    wider = randomize_norms(kind(32, 16)).eval()
    torch.testing.assert_close(wider(x), wider.shortcut(F.gelu(x)) + _branch(wider, F.gelu(x)))


@pytest.mark.parametrize('kind', BLOCKS)
def test_block__initial_branch_is_zero(kind):
    x = torch.randn(2, 32, 5, 3)
    block = kind(32, 8)  # in training mode, where the zero weight of the branch's last norm gives zeros
    assert isinstance(block.shortcut, nn.Identity)
    assert (block.expand.norm.weight == 0).all()
    torch.testing.assert_close(block(x), F.gelu(x))


@pytest.mark.parametrize('kind', BLOCKS)
def test_block__widths(kind):
    block = kind(24, 8)
    assert block(torch.randn(1, 24, 4, 5)).shape == (1, 32, 4, 5)
    assert isinstance(block.expand.act, nn.Identity)
    assert block.expand.conv.out_channels == 32


def test_axial_block__key_and_value_widths():
    # The attention has f key channels and 2f value channels (deeplab2, axial_blocks.py).
    attention = AxialBlock(24, 16).attention
    assert attention.height_axis.split_sizes == attention.width_axis.split_sizes == (16, 16, 32)
    assert attention.height_axis.num_heads == 8


@pytest.mark.parametrize('kind', BLOCKS)
def test_block__drop_path(kind):
    block = randomize_norms(kind(32, 8, drop_path_rate=0.5)).eval()
    x = torch.randn(64, 32, 3, 2)
    shortcut, kept = F.gelu(x), _branch(block, F.gelu(x))
    torch.testing.assert_close(block(x), shortcut + kept)

    # In training the branch of an image is either dropped or doubled, which preserves the expectation.
    block.drop_path.train()
    output = block(x)
    dropped = (output - shortcut).flatten(1).abs().amax(1) < 1e-6
    assert 10 < dropped.sum() < 54
    torch.testing.assert_close(output[~dropped], (shortcut + 2 * kept)[~dropped])


@pytest.mark.parametrize('width, base', [(32, 8), (24, 8)])
def test_basic_block__forward_by_hand(width, base):
    block = randomize_norms(BasicBlock(width, base, stride=2)).eval()
    assert [tuple(conv.conv.weight.shape) for conv in (block.first, block.second)] == [(32, width, 3, 3),
                                                                                       (32, 32, 3, 3)]
    x = torch.randn(2, width, 5, 9)
    activated = F.gelu(x)
    shortcut = activated[:, :, ::2, ::2] if width == 32 else block.shortcut(activated)
    torch.testing.assert_close(block(x), shortcut + _branch(block, activated))
    assert block(x).shape == (2, 32, 3, 5)

    fresh = BasicBlock(32, 8)
    assert (fresh.second.norm.weight == 0).all() and isinstance(fresh.second.act, nn.Identity)


@pytest.mark.parametrize('kind', [*BLOCKS, BasicBlock])
def test_block__act_cfg(kind):
    block = randomize_norms(kind(32, 8, act_cfg=dict(type='ReLU'))).eval()
    activations = [module for module in block.modules() if isinstance(module, (nn.ReLU, nn.GELU))]
    assert activations and all(isinstance(module, nn.ReLU) for module in activations)

    # ReLU maps a negative input to zeros.
    negative = -torch.rand(2, 32, 3, 4)
    torch.testing.assert_close(block(negative), block(torch.zeros(2, 32, 3, 4)))


def test_axial_block__attention_expansion_of_max_deeplab_l():
    # deeplab2, axial_resnet_instances.py: bottleneck and value expansion 4, key expansion 2
    block = AxialBlock(24, 16, attention_expansion=4)
    assert block.attention.height_axis.split_sizes == block.attention.width_axis.split_sizes == (32, 32, 64)
    assert block.reduce.conv.out_channels == block.expand.conv.in_channels == 64
    assert block(torch.randn(1, 24, 3, 4)).shape == (1, 64, 3, 4)


@pytest.mark.parametrize('kind', BLOCKS)
def test_block__group_norm(kind):
    block = kind(20, 24, norm_cfg=dict(type='GN', num_groups=32))
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in block.modules())
    assert block(torch.randn(1, 20, 3, 4)).isfinite().all()


@pytest.mark.parametrize('size', [(5, 9), (4, 6)])
@pytest.mark.parametrize('width', [32, 24])
@pytest.mark.parametrize('kind', BLOCKS)
def test_block__stride_2(kind, width, size):
    block, plain = kind(width, 8, stride=2), kind(width, 8)
    plain.load_state_dict(randomize_norms(block).state_dict())  # the stride has no parameters
    x = torch.randn(2, width, *size)
    block.eval(), plain.eval()
    activated = F.gelu(x)
    torch.testing.assert_close(block.shortcut(activated), plain.shortcut(activated)[:, :, ::2, ::2])
    if kind is BottleneckBlock:
        torch.testing.assert_close(block(x), plain(x)[:, :, ::2, ::2])

    # Rows are dropped after the attention along the height axis, columns after that along the width axis.
    else:
        attention, reduced = block.attention, plain.reduce(activated)
        columns = [attention.height_axis(reduced[..., i]) for i in range(size[1])]
        y = torch.stack(columns, dim=3)[:, :, ::2]
        y = torch.stack([attention.width_axis(y[:, :, i]) for i in range(y.shape[2])], dim=2)[..., ::2]
        torch.testing.assert_close(attention(reduced), y)
        assert block(x).shape == (2, 32, *((length + 1) // 2 for length in size))
