import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from remax_mm.models.layers.mask_predictor import MaskPredictor, add_void_prior, prior_logit
from tests.random_statistics import randomize_norms


def _predictor(num_classes=3, **options):
    return MaskPredictor(6, 5, num_classes, channels=8, embedding_channels=4, **options)


def _inputs(dtype=torch.float32):
    return [torch.randn(*shape, dtype=dtype) for shape in ((2, 5, 7), (2, 5, 7), (2, 6, 3, 4))]


@pytest.mark.parametrize('num_classes', [1, 19, 133])
def test_add_void_prior__zero_logits(num_classes):
    probability = add_void_prior(torch.zeros(2, 3, num_classes + 1, dtype=torch.float64)).softmax(-1)
    torch.testing.assert_close(probability[..., -1], torch.full((2, 3), 0.9, dtype=torch.float64))
    torch.testing.assert_close(probability[..., 0], torch.full((2, 3), 0.1 / num_classes,
                                                               dtype=torch.float64))


def test_add_void_prior__offset_of_coco():
    logits = torch.randn(1, 2, 134, dtype=torch.float64)
    shift = add_void_prior(logits) - logits
    assert (shift[..., :-1] == 0).all()
    torch.testing.assert_close(shift[..., -1], torch.full((1, 2), math.log(133 * 9), dtype=torch.float64))


def test_mask_predictor__naive_loops():
    predictor = randomize_norms(_predictor()).double().eval()
    mask_embedding, class_embedding, feature = _inputs(torch.float64)
    prediction = predictor(mask_embedding, class_embedding, feature)

    pixels = predictor.pixel_embedding(predictor.pixel_head(feature))
    kernels = predictor.mask_kernel(mask_embedding)
    norm = predictor.mask_norm
    void_prior = math.log(3 * 9)
    for image in range(2):
        for slot in range(7):
            weight, bias = predictor.class_head.conv.weight[..., 0], predictor.class_head.conv.bias
            expected = weight @ class_embedding[image, :, slot] + bias
            expected[-1] += void_prior
            torch.testing.assert_close(prediction.class_logits[image, slot], expected)
            for row in range(3):
                for column in range(4):
                    pixel = pixels[image, :, row, column]
                    pixel = pixel / sum(value**2 for value in pixel)**0.5
                    torch.testing.assert_close(prediction.pixel_feature[image, :, row, column], pixel)
                    product = sum(a * b for a, b in zip(kernels[image, :, slot], pixel))
                    expected = (product - norm.running_mean) / (norm.running_var + 1e-3).sqrt()
                    expected = expected * norm.weight + norm.bias
                    torch.testing.assert_close(prediction.mask_logits[image, slot, row, column], expected[0])


def test_mask_predictor__one_scale_for_all_slots_and_pixels():
    predictor = _predictor()
    products = []
    predictor.mask_norm.register_forward_hook(lambda module, args, result: products.append(args[0]))
    mask_logits = predictor(*_inputs()).mask_logits

    # In training the norm uses the statistics of the whole batch. Its initial weight is 0.1.
    product = products[0].reshape(2, 7, 3, 4)
    expected = 0.1 * (product - product.mean()) / (product.var(unbiased=False) + 1e-3).sqrt()
    torch.testing.assert_close(mask_logits, expected)


def test_mask_predictor__initialization():
    predictor = MaskPredictor(64, 64, 133)
    assert (predictor.mask_norm.weight == 0.1).all() and (predictor.mask_norm.bias == 0).all()
    for layer, std in ((predictor.pixel_embedding, 0.01), (predictor.class_head, 0.01),
                       (predictor.mask_kernel, math.sqrt(2 / 64))):
        assert layer.conv.weight.abs().max() <= 2 * std
        assert abs(layer.conv.weight.std().item() / (0.8796 * std) - 1) < 0.03
    assert (predictor.class_head.conv.bias == 0).all()
    assert predictor.mask_kernel.conv.bias is None

    # Before training the probability of void is 0.9.
    prediction = predictor.eval()(torch.zeros(1, 64, 2), torch.zeros(1, 64, 2), torch.randn(1, 64, 3, 3))
    torch.testing.assert_close(prediction.class_logits.softmax(-1)[..., -1], torch.full((1, 2), 0.9))


def test_mask_predictor__float32_output_in_mixed_precision():
    predictor = randomize_norms(_predictor()).eval()
    inputs = _inputs()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        prediction = predictor(*inputs)
    assert {part.dtype for part in prediction[:3]} == {torch.float32}
    torch.testing.assert_close(
        F.normalize(prediction.pixel_feature, dim=1), prediction.pixel_feature, atol=1e-2, rtol=0)
    exact = predictor(*inputs)
    torch.testing.assert_close(prediction.mask_logits, exact.mask_logits, atol=0.1, rtol=0.1)
    assert prediction.relaxed_mask_logits is None and prediction.sem_logits is None


def test_mask_predictor__group_norm():
    predictor = _predictor(norm_cfg=dict(type='GN', num_groups=32))
    assert predictor(*_inputs()).mask_logits.shape == (2, 7, 3, 4)


def test_mask_predictor__act_cfg():
    # The only activations are those of the two convolutions in the pixel head.
    for act_cfg, kind in ((dict(type='GELU'), nn.GELU), (dict(type='ReLU'), nn.ReLU)):
        activations = [
            module for module in _predictor(act_cfg=act_cfg).modules()
            if isinstance(module, (nn.GELU, nn.ReLU))
        ]
        assert [type(module) for module in activations] == [kind] * 2


@pytest.mark.parametrize('num_slots', [2, 24, 128])
def test_prior_logit__balances_the_sigmoid_over_slots(num_slots):
    """Each pixel has one slot: the gradient of the binary cross entropy by a common shift vanishes."""
    logit = torch.tensor(prior_logit(1 / num_slots), dtype=torch.float64, requires_grad=True)
    assert logit.item() == pytest.approx(-math.log(num_slots - 1))
    target = F.one_hot(torch.tensor(0), num_slots).double()
    false_positives, false_negatives = ((
        weight * F.binary_cross_entropy_with_logits(logit.expand(num_slots), target, reduction='none')).sum()
                                        for weight in (1 - target, target))
    assert false_positives.item() == pytest.approx((num_slots - 1) * math.log(num_slots / (num_slots - 1)))
    assert false_negatives.item() == pytest.approx(math.log(num_slots))
    gradient, = torch.autograd.grad(false_positives + false_negatives, logit)
    assert gradient.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize('probability', [0.0, 1.0, -0.1, 2.0])
def test_prior_logit__out_of_range(probability):
    with pytest.raises(ValueError, match=f'between 0 and 1, but got {probability}'):
        prior_logit(probability)


@pytest.mark.parametrize('norm_cfg', [dict(type='BN'), dict(type='GN', num_groups=1)])
def test_mask_predictor__mask_prior_is_the_initial_probability(norm_cfg):
    torch.manual_seed(0)
    plain = _predictor(norm_cfg=norm_cfg)
    torch.manual_seed(0)
    predictor = _predictor(norm_cfg=norm_cfg, mask_prior=0.05)
    assert predictor.mask_norm.bias.sigmoid().item() == pytest.approx(0.05)

    # Nothing else differs, and a checkpoint decides.
    differing = [
        key for key, value in predictor.state_dict().items() if not value.equal(plain.state_dict()[key])
    ]
    assert differing == ['mask_norm.bias']
    predictor.load_state_dict(plain.state_dict())
    assert predictor.mask_norm.bias.item() == 0
