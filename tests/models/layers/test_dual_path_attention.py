import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from remax_mm.models.layers import attend
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
    """A batch norm in eval, for one value."""
    value = (value - norm.running_mean[channel]) / (norm.running_var[channel] + norm.eps).sqrt()
    return value * norm.weight[channel] + norm.bias[channel]


def _reference_attention(attention, reader, sources):
    """One query after the other, over the positions of all sources in a row."""
    images, heads, value_depth, length = (reader.query.shape[0], *sources[0].value.shape[1:3],
                                          reader.query.shape[3])
    retrieved = torch.zeros(images, heads * value_depth, length, dtype=reader.query.dtype)
    for image in range(images):
        for head in range(heads):
            offers = [(source.key[image, head, :, there], source.value[image, head, :, there])
                      for source in sources for there in range(source.key.shape[3])]
            for here in range(length):
                query = reader.query[image, head, :, here]
                logits = [_affine(attention.similarity_norm, query @ key, head).item() for key, _ in offers]
                total = sum(math.exp(logit) for logit in logits)
                for channel in range(value_depth):
                    row = head * value_depth + channel
                    mean = sum(
                        math.exp(logit) / total * value[channel] for logit, (_, value) in zip(logits, offers))
                    retrieved[image, row, here] = _affine(attention.value_norm, mean, row)
    return attention.project(retrieved.clamp(min=0))


# Of memory (5 slots) and pixels (12 of them), by name: who reads, and from whom.
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
    reader, sources = paths[KINDS[kind][0]], [paths[name] for name in KINDS[kind][1]]
    attention = randomize_norms(PathAttention(8, 3, 2, act_cfg=RELU)).double().eval()
    output = attention(reader, *sources)
    assert output.shape == (2, 3, reader.query.shape[3])
    torch.testing.assert_close(output, _reference_attention(attention, reader, sources))


def test_path_attention__one_softmax_over_both_sources():
    # With all similarities equal, each of 12 pixels and 5 slots weighs 1 / 17.
    memory, pixel = _projection(5), _projection(12)
    attention = PathAttention(8, 8, 2).double().eval()
    attention.value_norm = attention.act = attention.project = nn.Identity()
    read = attention(memory._replace(query=torch.zeros_like(memory.query)), pixel, memory)
    mean = (pixel.value.sum(-1) + memory.value.sum(-1)).flatten(1) / 17
    torch.testing.assert_close(read, mean[..., None].expand(-1, -1, 5))


def test_attend__gradients():
    similarity_norm, value_norm = nn.BatchNorm2d(2).double(), nn.BatchNorm1d(8).double()
    query, key, value = (part[..., :length].clone().requires_grad_()
                         for part, length in zip(_projection(4), (3, 4, 4)))
    assert torch.autograd.gradcheck(lambda *parts: attend(*parts, similarity_norm, value_norm),
                                    (query, key, value))


def test_attend__shapes_of_deeplab2():
    # dual_path_transformer_test.py: 4225 queries, 422 keys, 8 heads of 127 and 128.
    query, key = torch.zeros(2, 8, 127, 4225), torch.zeros(2, 8, 127, 422)
    output = attend(query, key, torch.zeros(2, 8, 128, 422), nn.Identity(), nn.Identity())
    assert output.shape == (2, 1024, 4225)


def test_attend__softmax_in_float32():
    seen = []

    class Watch(TorchDispatchMode):

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if 'softmax' in function.__name__:
                seen.append(args[0].dtype)
            return function(*args, **(kwargs or {}))

    query, key, value = _projection(4, dtype=torch.bfloat16)
    with Watch():
        output = attend(query, key, value, nn.Identity(), nn.Identity())
    assert seen == [torch.float32] and output.dtype == torch.bfloat16


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
def test_dual_path_layer__both_paths_read_what_was_before():
    layer = randomize_norms(_layer()).double().eval()
    pixel, memory = _paths()
    new_pixel, new_memory = layer(pixel, memory)

    # Pixels are activated to be looked at, the memory is not: it already is but for its first layer.
    from_pixel, from_memory = layer.pixel_projection(pixel.clamp(min=0)), layer.memory_projection(memory)
    read = _reference_attention(layer.memory_attention, from_memory, [from_pixel, from_memory])
    middle = (memory + read).clamp(min=0)
    expected_memory = (middle + layer.ffn(middle)).clamp(min=0)
    torch.testing.assert_close(new_memory, expected_memory)

    # The feedback to the pixels is made from the memory that came in, and is not activated.
    feedback = _reference_attention(layer.pixel_attention, from_pixel, [from_memory])
    torch.testing.assert_close(new_pixel, pixel + feedback.view(2, 6, 3, 4))
    assert (new_pixel < 0).any()
    late = _reference_attention(layer.pixel_attention, from_pixel, [layer.memory_projection(new_memory)])
    assert not torch.allclose(feedback, late)


def test_dual_path_layer__starts_by_leaving_the_pixels_alone():
    layer = _layer()  # training mode: the zeros are the weights of each branch's last norm
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


def test_dual_path_layer__keeps_any_shape():
    # dual_path_transformer_test.py of deeplab2: pixels 25 x 35 of 126 channels, 127 slots of 128
    layer = DualPathLayer(126, 128)
    pixel, memory = layer(torch.randn(2, 126, 25, 35), torch.randn(2, 128, 127))
    assert pixel.shape == (2, 126, 25, 35) and memory.shape == (2, 128, 127)


@torch.no_grad()
def test_dual_path_layer__slots_are_a_set():
    layer = randomize_norms(_layer()).double().eval()
    pixel, memory = _paths()
    order = torch.randperm(7)
    (plain_pixel, plain_memory), (pixel, memory) = layer(pixel, memory), layer(pixel, memory[..., order])
    torch.testing.assert_close(pixel, plain_pixel)
    torch.testing.assert_close(memory, plain_memory[..., order])


def test_dual_path_layer__gradients():
    layer = randomize_norms(_layer(act_cfg=dict(type='GELU'))).double()  # no kinks in the way of differences
    pixel, memory = _paths()
    pixel, memory = pixel[..., :2, :2].clone().requires_grad_(), memory[..., :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(layer, (pixel, memory))


def test_dual_path_layer__trains_every_parameter():
    layer = randomize_norms(_layer())
    pixel, memory = layer(*_paths(dtype=torch.float32))
    (pixel.square().mean() + memory.square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in layer.parameters())


def test_dual_path_layer__drop_path_on_each_update_by_itself():
    layer = randomize_norms(_layer(drop_path_rate=0.5)).eval()
    pixel, memory = _paths(batch_size=256, dtype=torch.float32)
    dropped = []

    def watch(module, args, result):
        dropped.append((result == 0).flatten(1).all(1))

    layer.drop_path.train().register_forward_hook(watch)
    with torch.no_grad():
        layer(pixel, memory)
    assert len(dropped) == 3
    patterns = torch.stack(dropped).long()
    # Each of the eight patterns in about an eighth of the images.
    counts = torch.bincount(patterns[0] * 4 + patterns[1] * 2 + patterns[2], minlength=8)
    assert counts.min() > 14 and counts.max() < 54


def test_dual_path_layer__mixed_precision_is_close():
    layer = randomize_norms(_layer())
    pixel, memory = _paths(dtype=torch.float32)
    exact = layer(pixel, memory)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outputs = layer(pixel, memory)
    for output, expected in zip(outputs, exact):
        assert output.isfinite().all()
        torch.testing.assert_close(output.float(), expected, atol=0.15, rtol=0.1)


def test_dual_path_layer__heads_must_divide_the_keys():
    with pytest.raises(ValueError, match='multiple of 16, twice its heads, but got 24'):
        DualPathLayer(4, 4, channels=24)
