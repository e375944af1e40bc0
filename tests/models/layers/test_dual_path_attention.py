import math

import pytest
import torch
from torch import nn

from remax_mm.models.layers.dual_path_attention import (DualPathLayer, PathAttention, PathProjection,
                                                        Projection)
from tests.random_statistics import randomize_norms

SMALL = dict(channels=8, ffn_channels=12, num_heads=2)
RELU = dict(type='ReLU')


def _projection(length, heads=2, depth=2, value_depth=4, dtype=torch.float64):
    return Projection(*(torch.randn(2, heads, size, length, dtype=dtype)
                        for size in (depth, depth, value_depth)))


def _layer(**options):
    return DualPathLayer(6, 5, **{**SMALL, 'act_cfg': RELU, **options})


def _paths(batch_size=2, dtype=torch.float64):
    return torch.randn(batch_size, 6, 3, 4, dtype=dtype), torch.randn(batch_size, 5, 7, dtype=dtype)


def _affine(norm, value, channel):
    """Batch norm in eval mode of a single value."""
    value = (value - norm.running_mean[channel]) / (norm.running_var[channel] + norm.eps).sqrt()
    return value * norm.weight[channel] + norm.bias[channel]


def _reference_attention(attention, target, sources):
    """Attention of one query at a time to the keys of all sources."""
    images, heads, value_depth, length = (target.query.shape[0], *sources[0].value.shape[1:3],
                                          target.query.shape[3])
    retrieved = torch.zeros(images, heads * value_depth, length, dtype=target.query.dtype)
    for image in range(images):
        for head in range(heads):
            pairs = [(source.key[image, head, :, position], source.value[image, head, :, position])
                     for source in sources for position in range(source.key.shape[3])]
            for position in range(length):
                query = target.query[image, head, :, position]
                logits = [_affine(attention.similarity_norm, query @ key, head).item() for key, _ in pairs]
                total = sum(math.exp(logit) for logit in logits)
                for channel in range(value_depth):
                    row = head * value_depth + channel
                    mean = sum(
                        math.exp(logit) / total * value[channel] for logit, (_, value) in zip(logits, pairs))
                    retrieved[image, row, position] = _affine(attention.value_norm, mean, row)
    return attention.project(retrieved.clamp(min=0))


# Kinds of attention: the path of the queries, and the paths of the keys and values.
KINDS = {
    'memory to pixel': ('memory', ['pixel']),
    'memory to memory': ('memory', ['memory']),
    'memory to both': ('memory', ['pixel', 'memory']),
    'pixel to memory': ('pixel', ['memory']),
}


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
def test_path_attention__naive_loops(kind):
    paths = dict(memory=_projection(5), pixel=_projection(12))
    target, sources = paths[KINDS[kind][0]], [paths[name] for name in KINDS[kind][1]]
    attention = randomize_norms(PathAttention(8, 3, 2, act_cfg=RELU)).double().eval()
    output = attention(target, *sources)
    assert output.shape == (2, 3, target.query.shape[3])
    torch.testing.assert_close(output, _reference_attention(attention, target, sources))


def test_path_attention__one_softmax_over_both_sources():
    # With equal similarities the weight of each of 12 pixels and 5 slots is 1 / 17.
    memory, pixel = _projection(5), _projection(12)
    attention = PathAttention(8, 8, 2).double().eval()
    attention.value_norm = attention.act = attention.project = nn.Identity()
    retrieved = attention(memory._replace(query=torch.zeros_like(memory.query)), pixel, memory)
    mean = (pixel.value.sum(-1) + memory.value.sum(-1)).flatten(1) / 17
    torch.testing.assert_close(retrieved, mean[..., None].expand(-1, -1, 5))


@pytest.mark.parametrize('dim', [1, 2])
def test_path_projection__reduce_then_split(dim):
    projection = randomize_norms(PathProjection(6, 8, 2, dim, act_cfg=RELU)).double().eval()
    x = torch.randn(2, 6, *(3, 4)[:dim], dtype=torch.float64)
    qkv = projection.qkv(projection.reduce(x)).flatten(2)
    query, key, value = projection(x)
    assert query.shape == key.shape == (2, 2, 2, qkv.shape[2]) and value.shape == (2, 2, 4, qkv.shape[2])
    torch.testing.assert_close(torch.cat([part.flatten(1, 2) for part in (query, key, value)], dim=1), qkv)
    assert isinstance(projection.reduce.act, nn.ReLU) and isinstance(projection.qkv.act, nn.Identity)


@torch.no_grad()
def test_dual_path_layer__forward_by_hand():
    layer = randomize_norms(_layer()).double().eval()
    pixel, memory = _paths()
    new_pixel, new_memory = layer(pixel, memory)

    # The pixels are activated before the projection; the memory is not, because layers return it activated.
    from_pixel, from_memory = layer.pixel_projection(pixel.clamp(min=0)), layer.memory_projection(memory)
    retrieved = _reference_attention(layer.memory_attention, from_memory, [from_pixel, from_memory])
    middle = (memory + retrieved).clamp(min=0)
    expected_memory = (middle + layer.ffn(middle)).clamp(min=0)
    torch.testing.assert_close(new_memory, expected_memory)

    # The update of the pixels uses the memory before the layer. Its sum with the pixels is not activated.
    update = _reference_attention(layer.pixel_attention, from_pixel, [from_memory])
    torch.testing.assert_close(new_pixel, pixel + update.view(2, 6, 3, 4))
    assert (new_pixel < 0).any()
    wrong = _reference_attention(layer.pixel_attention, from_pixel, [layer.memory_projection(new_memory)])
    assert not torch.allclose(update, wrong)


def test_dual_path_layer__initial_updates_are_zero():
    layer = _layer()  # in training mode, where zero weights of the last norms give zeros
    last = (layer.pixel_attention.project, layer.memory_attention.project, layer.ffn[1])
    assert all((conv.norm.weight == 0).all() and isinstance(conv.act, nn.Identity) for conv in last)
    pixel, memory = _paths(dtype=torch.float32)
    new_pixel, new_memory = layer(pixel, memory)
    torch.testing.assert_close(new_pixel, pixel)
    torch.testing.assert_close(new_memory, memory.clamp(min=0))


def test_dual_path_layer__widths_of_max_deeplab():
    # deeplab2, filters 128: bottleneck 256, keys 128, values 256, 8 heads, feed-forward network 2048.
    with torch.device('meta'):
        layer = DualPathLayer(2048, 256)
    assert layer.pixel_projection.reduce.conv.weight.shape == (256, 2048, 1, 1)
    assert layer.pixel_projection.split_sizes == layer.memory_projection.split_sizes == (128, 128, 256)
    assert layer.pixel_attention.project.conv.weight.shape == (2048, 256, 1)
    assert layer.memory_attention.project.conv.weight.shape == (256, 256, 1)
    assert [conv.conv.out_channels for conv in layer.ffn] == [2048, 256]
    assert len(layer.pixel_attention.similarity_norm.weight) == 8


def test_dual_path_layer__initialization():
    for projection in (module for module in DualPathLayer(64, 32).modules()
                       if isinstance(module, PathProjection)):
        weight = projection.qkv.conv.weight
        assert weight.abs().max() <= 2 / 16  # truncated at two standard deviations of 256 ** -0.5
        assert abs(weight.std().item() * 16 - 0.8796) < 0.01


def test_dual_path_layer__shapes_of_deeplab2():
    # dual_path_transformer_test.py: 25 x 35 pixels with 126 channels, 127 slots with 128
    layer = DualPathLayer(126, 128)
    pixel, memory = layer(torch.randn(2, 126, 25, 35), torch.randn(2, 128, 127))
    assert pixel.shape == (2, 126, 25, 35) and memory.shape == (2, 128, 127)


@torch.no_grad()
def test_dual_path_layer__permuted_slots():
    layer = randomize_norms(_layer()).double().eval()
    pixel, memory = _paths()
    order = torch.randperm(7)
    expected_pixel, expected_memory = layer(pixel, memory)
    new_pixel, new_memory = layer(pixel, memory[..., order])
    torch.testing.assert_close(new_pixel, expected_pixel)
    torch.testing.assert_close(new_memory, expected_memory[..., order])


def test_dual_path_layer__gradients():
    layer = randomize_norms(_layer(act_cfg=dict(type='GELU'))).double()  # differentiable everywhere
    pixel, memory = _paths()
    pixel, memory = pixel[..., :2, :2].clone().requires_grad_(), memory[..., :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(layer, (pixel, memory))


def test_dual_path_layer__every_parameter_gets_a_gradient():
    layer = randomize_norms(_layer())
    pixel, memory = layer(*_paths(dtype=torch.float32))
    (pixel.square().mean() + memory.square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in layer.parameters())


def test_dual_path_layer__drop_path_of_each_update():
    layer = randomize_norms(_layer(drop_path_rate=0.5)).eval()
    pixel, memory = _paths(batch_size=256, dtype=torch.float32)
    dropped = []

    def record(module, args, result):
        dropped.append((result == 0).flatten(1).all(1))

    layer.drop_path.train().register_forward_hook(record)
    with torch.no_grad():
        layer(pixel, memory)
    assert len(dropped) == 3
    patterns = torch.stack(dropped).long()
    # About an eighth of the images has each of the eight patterns.
    counts = torch.bincount(patterns[0] * 4 + patterns[1] * 2 + patterns[2], minlength=8)
    assert counts.min() > 14 and counts.max() < 54


def test_dual_path_layer__mixed_precision():
    layer = randomize_norms(_layer())
    pixel, memory = _paths(dtype=torch.float32)
    exact = layer(pixel, memory)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outputs = layer(pixel, memory)
    for output, expected in zip(outputs, exact):
        assert output.isfinite().all()
        torch.testing.assert_close(output.float(), expected, atol=0.15, rtol=0.1)


def test_dual_path_layer__invalid_width():
    with pytest.raises(ValueError, match='multiple of twice its number of heads, 16, but got 24'):
        DualPathLayer(4, 4, channels=24)
