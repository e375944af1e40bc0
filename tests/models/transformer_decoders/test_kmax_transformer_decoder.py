"""The transformer decoder of kMaX-DeepLab: k-means update, self-attention, layers, ReMask in its layers."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from remax_mm.models.transformer_decoders.kmax_transformer_decoder import (KMaXDecoderLayer,
                                                                           KMaXTransformerDecoder,
                                                                           SlotSelfAttention, kmeans_update)
from tests.random_statistics import randomize_norms

SMALL = dict(channels=16, ffn_channels=24, embedding_channels=6, num_heads=4)
REMASK = dict(type='ReMask', semantic_head=dict(type='StageSemanticHead', aspp_channels=4))


class FixedMasks(nn.Module):
    """A ReMask whose relaxed masks are fixed."""

    def __init__(self, relaxed):
        super().__init__()
        self.relaxed = relaxed

    def forward(self, prediction, context):
        return prediction._replace(relaxed_mask_logits=self.relaxed)


def _decoder(**options):
    settings = dict(in_channels=(10, 8, 6), num_classes=3, num_slots=5, num_layers=(2, 1))
    return KMaXTransformerDecoder(**{**settings, **SMALL, **options})


def _features(batch_size=2, dtype=torch.float32):
    sizes = ((10, 2, 3), (8, 3, 5), (6, 5, 9))
    return [torch.randn(batch_size, *size, dtype=dtype) for size in sizes]


def _reference_kmeans_update(mask_logits, pixel_value):
    batch_size, num_slots, height, width = mask_logits.shape
    sums = torch.zeros(batch_size, pixel_value.shape[1], num_slots, dtype=pixel_value.dtype)
    for image in range(batch_size):
        for row in range(height):
            for column in range(width):
                logits = mask_logits[image, :, row, column].tolist()
                sums[image, :, logits.index(max(logits))] += pixel_value[image, :, row, column]
    return sums


def test_kmeans_update__loops():
    mask_logits = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    pixel_value = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(
        kmeans_update(mask_logits, pixel_value), _reference_kmeans_update(mask_logits, pixel_value))


def test_kmeans_update__worked_example():
    # Three pixels, of which slot 0 has the first and the last, slot 1 the second and slot 2 none.
    mask_logits = torch.tensor([[3., -1., 9.], [2., 0., 1.], [1., -5., 8.]]).view(1, 3, 1, 3)
    pixel_value = torch.tensor([[1., 2., 4.], [10., 20., 40.]]).view(1, 2, 1, 3)
    sums = torch.tensor([[5., 2., 0.], [50., 20., 0.]]).view(1, 2, 3)
    torch.testing.assert_close(kmeans_update(mask_logits, pixel_value), sums)


def test_kmeans_update__gradients():
    mask_logits = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    pixel_value = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: kmeans_update(mask_logits, value), pixel_value)

    kmeans_update(mask_logits, pixel_value).sum().backward()
    assert mask_logits.grad is None
    assert (pixel_value.grad == 1).all()  # every pixel belongs to exactly one slot


def test_kmeans_update__sums_in_float32_under_mixed_precision():
    # 600 values of 1 in one slot: bfloat16 cannot count beyond 256.
    mask_logits, pixel_value = torch.zeros(1, 2, 20, 30), torch.ones(1, 1, 20, 30, dtype=torch.bfloat16)
    mask_logits[:, 1] = -1
    with torch.autocast('cpu', dtype=torch.bfloat16):
        sums = kmeans_update(mask_logits, pixel_value)
    assert sums.dtype == torch.float32 and sums.tolist() == [[[600, 0]]]


def test_slot_self_attention__loops():
    attention = randomize_norms(SlotSelfAttention(8, num_heads=2)).double().eval()
    slots = torch.randn(2, 8, 5, dtype=torch.float64)
    query, key, value = attention.qkv(slots).split([4, 4, 8], dim=1)
    norm = attention.similarity_norm

    retrieved = torch.zeros_like(value)
    for image in range(2):
        for head in range(2):
            for here in range(5):
                products = torch.stack([
                    query[image, 2 * head:2 * head + 2, here] @ key[image, 2 * head:2 * head + 2, there]
                    for there in range(5)
                ])
                scaled = (products - norm.running_mean[head]) / (norm.running_var[head] + norm.eps).sqrt()
                weights = (scaled * norm.weight[head] + norm.bias[head]).exp()
                for there in range(5):
                    share = weights[there] / weights.sum()
                    retrieved[image, 4 * head:4 * head + 4,
                              here] += share * value[image, 4 * head:4 * head + 4, there]
    expected = attention.project(F.gelu(attention.value_norm(retrieved)))
    torch.testing.assert_close(attention(slots), expected)


def test_kmax_decoder_layer__kmeans_and_self_attention_are_parallel():
    layer = randomize_norms(KMaXDecoderLayer(10, 3, **SMALL)).double().eval()
    slots = torch.randn(2, 16, 5, dtype=torch.float64)
    feature = torch.randn(2, 10, 3, 4, dtype=torch.float64)
    updated, prediction = layer(slots, feature)

    slot_space = layer.slot_projection(slots)
    pixel_space = layer.pixel_projection(F.gelu(feature))
    expected = layer.predictor(slot_space, slot_space, pixel_space)
    for part, expected_part in zip(prediction[:3], expected[:3]):
        torch.testing.assert_close(part, expected_part)

    centers = _reference_kmeans_update(expected.mask_logits, layer.pixel_value(pixel_space))
    centers = layer.update(layer.update_norm(centers))
    middle = F.gelu(slots + centers + layer.self_attention(slot_space))
    torch.testing.assert_close(updated, F.gelu(middle + layer.ffn(middle)))


def test_kmax_decoder_layer__initially_only_activates_its_slots():
    layer = KMaXDecoderLayer(10, 3, **SMALL)
    last_norms = (layer.update.norm, layer.self_attention.project.norm, layer.ffn[1].norm)
    assert all((norm.weight == 0).all() for norm in last_norms)
    slots = torch.randn(2, 16, 5)
    updated, _ = layer(slots, torch.randn(2, 10, 3, 4))
    torch.testing.assert_close(updated, F.gelu(F.gelu(slots)))


@pytest.mark.parametrize('relax_assignment', [True, False])
def test_kmax_decoder_layer__relaxed_masks_assign_pixels(relax_assignment):
    # With relaxed masks, slot 4 gets all pixels; with un-relaxed masks, several slots get some.
    relaxed = torch.zeros(2, 5, 3, 4)
    relaxed[:, 4] = 1
    layer = KMaXDecoderLayer(10, 3, **SMALL, remask=FixedMasks(relaxed), relax_assignment=relax_assignment)
    sums, values = [], []
    layer.update_norm.register_forward_hook(lambda module, args, result: sums.append(args[0]))
    layer.pixel_value.register_forward_hook(lambda module, args, result: values.append(result))
    _, prediction = layer(torch.randn(2, 16, 5), torch.randn(2, 10, 3, 4))

    everything = torch.zeros(2, 16, 5)
    everything[..., 4] = values[0].sum((2, 3))
    shared = _reference_kmeans_update(prediction.mask_logits, values[0])
    assert not torch.allclose(everything, shared)
    torch.testing.assert_close(sums[0], everything if relax_assignment else shared)
    assert prediction.relaxed_mask_logits is relaxed


def test_kmax_decoder_layer__drop_path_on_all_three_updates():
    layer = randomize_norms(KMaXDecoderLayer(10, 3, **SMALL, drop_path_rate=0.3)).eval()
    slots, feature = torch.randn(1, 16, 5), torch.randn(1, 10, 3, 4)
    dropped = []
    layer.drop_path.register_forward_hook(lambda module, args, result: dropped.append(args[0]) or 0 * result)
    updated, _ = layer(slots, feature)
    assert layer.drop_path.drop_prob == 0.3 and len(dropped) == 3
    torch.testing.assert_close(updated, F.gelu(F.gelu(slots)))


def test_kmax_transformer_decoder__resolution_of_each_prediction():
    decoder = _decoder().eval()
    predictions = decoder(_features())
    assert [tuple(p.mask_logits.shape) for p in predictions] == [(2, 5, 2, 3), (2, 5, 2, 3), (2, 5, 3, 5),
                                                                 (2, 5, 5, 9)]
    assert [tuple(p.pixel_feature.shape) for p in predictions] == [(2, 6, 2, 3), (2, 6, 2, 3), (2, 6, 3, 5),
                                                                   (2, 6, 5, 9)]
    assert {tuple(p.class_logits.shape) for p in predictions} == {(2, 5, 4)}


def test_kmax_transformer_decoder__each_layer_gets_the_slots_of_the_last_one():
    decoder = randomize_norms(_decoder()).double().eval()
    features = _features(dtype=torch.float64)
    slots = decoder.cluster_centers[None].repeat(2, 1, 1)
    expected = []
    for layer, feature in zip(decoder.layers, (features[0], features[0], features[1])):
        slots, prediction = layer(slots, feature)
        expected.append(prediction)
    expected.append(
        decoder.predictor(decoder.mask_embedding(slots), decoder.class_embedding(slots), features[2]))
    for prediction, reference in zip(decoder(features), expected):
        for part, reference_part in zip(prediction[:3], reference[:3]):
            torch.testing.assert_close(part, reference_part)


def test_kmax_transformer_decoder__cluster_centers_are_truncated_normal():
    centers = _decoder(channels=256, num_slots=128, num_heads=8).cluster_centers
    assert centers.shape == (256, 128)
    assert centers.abs().max() <= 2
    assert abs(centers.std().item() - 0.8796) < 0.01  # of a standard normal distribution truncated at 2


def test_kmax_transformer_decoder__trains_every_parameter():
    decoder = randomize_norms(_decoder(num_relaxed=2, remask=REMASK))
    predictions = decoder(_features())
    total = sum(part.square().mean() for p in predictions for part in p if part is not None)
    total.backward()
    assert not [
        name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]


@pytest.mark.parametrize('num_relaxed', [1, 2, 3])
def test_kmax_transformer_decoder__first_layers_are_relaxed(num_relaxed):
    decoder = _decoder(num_relaxed=num_relaxed, remask=REMASK)
    relaxed = [p.relaxed_mask_logits is not None for p in decoder(_features())]
    assert relaxed == [index < num_relaxed for index in range(4)]
    assert [p.sem_logits is not None for p in decoder(_features())] == relaxed

    # Each layer has its own semantic head.
    heads = [layer.remask.semantic_head for layer in decoder.layers if layer.remask is not None]
    assert len({id(head) for head in heads}) == num_relaxed


@pytest.mark.parametrize('source, widths', [('pixel_space', (16, 16)), ('pixel_decoder', (10, 8)),
                                            ('embedding', (6, 6))])
def test_kmax_transformer_decoder__semantic_heads_fit_their_stage(source, widths):
    norm_cfg = dict(type='BN', eps=0.5)
    decoder = _decoder(remask=dict(REMASK, source=source), norm_cfg=norm_cfg, num_layers=(1, 2))
    heads = [layer.remask.semantic_head for layer in decoder.layers[:2]]
    assert tuple(head.aspp.pool.project.conv.in_channels for head in heads) == widths
    assert all(head.classifier.conv.out_channels == 3 for head in heads)
    assert all(head.aspp.project.norm.eps == 0.5 for head in heads)


def test_kmax_transformer_decoder__config_of_the_semantic_head_has_priority():
    head = dict(REMASK['semantic_head'], num_classes=4, norm_cfg=dict(type='GN', num_groups=2))
    built = _decoder(remask=dict(REMASK, semantic_head=head)).layers[0].remask.semantic_head
    assert built.classifier.conv.out_channels == 4
    assert isinstance(built.aspp.project.norm, nn.GroupNorm)


@pytest.mark.parametrize('num_layers, expected', [((2, 1), 2), ((1, 1), 1), ((2, 4), 4)])
def test_kmax_transformer_decoder__relaxes_two_thirds_of_its_layers(num_layers, expected):
    decoder = _decoder(num_layers=num_layers, remask=REMASK)
    assert sum(layer.remask is not None for layer in decoder.layers) == expected


def test_kmax_transformer_decoder__context_of_each_remask():
    decoder = _decoder(num_relaxed=3, remask=REMASK)
    contexts, pixel_spaces = [], []
    for layer in decoder.layers:
        layer.pixel_projection.register_forward_hook(lambda module, args, result: pixel_spaces.append(result))
        layer.remask.register_forward_hook(lambda module, args, result: contexts.append(args[1]))
    features, sem_seg = _features(), torch.zeros(2, 5, 9, dtype=torch.int64)
    decoder(features, sem_seg)
    for context, pixel_space, stage in zip(contexts, pixel_spaces, (0, 0, 1)):
        assert context.pixel_space is pixel_space and context.pixel_decoder is features[stage]
        assert context.sem_seg is sem_seg


def test_kmax_transformer_decoder__group_norm_at_odd_widths():
    decoder = _decoder(norm_cfg=dict(type='GN', num_groups=32), channels=12, ffn_channels=30, num_heads=3)
    predictions = decoder(_features(batch_size=1))
    sum(p.mask_logits.square().mean() + p.class_logits.square().mean() for p in predictions).backward()
    assert decoder.cluster_centers.grad.isfinite().all()


@pytest.mark.parametrize('options, message', [
    (dict(num_layers=(2, 1, 1)), 'but got 3 entries for 3 features'),
    (dict(num_relaxed=4, remask=REMASK), 'from 1 to 3, the number of decoder layers, but got 4'),
    (dict(num_relaxed=-1, remask=REMASK), 'from 1 to 3, the number of decoder layers, but got -1'),
    (dict(num_relaxed=0, remask=REMASK), 'from 1 to 3, the number of decoder layers, but got 0'),
    (dict(num_relaxed=2), '`num_relaxed` only together with `remask`, but got 2'),
])
def test_kmax_transformer_decoder__contradicting_options(options, message):
    with pytest.raises(ValueError, match=message):
        _decoder(**options)
