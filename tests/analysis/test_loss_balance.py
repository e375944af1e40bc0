"""The two parts of a cross entropy of masks, against loops and by hand, and their statistics."""
import itertools
import math

import pytest
import torch
from torch import Tensor

from remax_mm.analysis.loss_balance import (LossParts, format_loss_balance, split_sigmoid_cross_entropy,
                                            split_softmax_cross_entropy, summarize_loss_balance)
from tests.worked_example import random_prediction, random_slot_targets, random_targets


def _reference_parts(logits: Tensor, masks: Tensor, void: Tensor, softmax: bool) -> list:
    """(false positive, false negative) of each image."""
    parts = []
    for b in range(len(logits)):
        positive = negative = 0.
        count = 0
        for y, x in itertools.product(*map(range, void.shape[1:])):
            if void[b, y, x]:
                continue
            count += 1
            z, g = logits[b, :, y, x].tolist(), masks[b, :, y, x].tolist()
            total = sum(math.exp(value) for value in z)
            for slot in range(len(z)):
                p = math.exp(z[slot]) / total if softmax else 1 / (1 + math.exp(-z[slot]))
                positive -= (1 - g[slot]) * math.log(1 - p)
                negative -= g[slot] * math.log(p)
        parts.append((positive / max(count, 1), negative / max(count, 1)))
    return parts


def _random_case(overlap: bool = False):
    prediction = random_prediction()
    return prediction.mask_logits, random_slot_targets(prediction, random_targets(overlap=overlap))


def _split(softmax: bool):
    return split_softmax_cross_entropy if softmax else split_sigmoid_cross_entropy


@pytest.mark.parametrize('softmax', [False, True])
@pytest.mark.parametrize('overlap', [False, True])
def test_split_cross_entropy__loops(softmax, overlap):
    logits, targets = _random_case(overlap)
    parts = _split(softmax)(logits, targets.masks, targets.void)
    expected = _reference_parts(logits, targets.masks, targets.void, softmax)
    torch.testing.assert_close(
        torch.stack(parts, 1), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_split_sigmoid_cross_entropy__by_hand():
    # Two pixels, each of another of two slots. Logit log 3 is probability 3/4, logit 0 is 1/2.
    logits = torch.tensor([[[[math.log(3), 0.]], [[0., math.log(3)]]]])
    masks = torch.tensor([[[[1., 0.]], [[0., 1.]]]])
    parts = split_sigmoid_cross_entropy(logits, masks, torch.zeros(1, 1, 2, dtype=torch.bool))
    # Each pixel: 3/4 for the right slot, 1/2 for the wrong one.
    assert parts.false_negative.item() == pytest.approx(math.log(4 / 3), rel=1e-6)
    assert parts.false_positive.item() == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize('num_slots', [2, 24, 128])
def test_split_cross_entropy__zero_logits(num_slots):
    # Fig. 1 of ReMaX: with 128 slots, 127 targets are 0 and one is 1, and all predictions are equal.
    logits = torch.zeros(1, num_slots, 3, 3)
    masks = torch.zeros(1, num_slots, 3, 3)
    masks[:, 1] = 1
    void = torch.zeros(1, 3, 3, dtype=torch.bool)
    sigmoid = split_sigmoid_cross_entropy(logits, masks, void)
    assert sigmoid.ratio.item() == pytest.approx(num_slots - 1, rel=1e-12)
    softmax = split_softmax_cross_entropy(logits, masks, void)
    expected = (num_slots - 1) * math.log(num_slots / (num_slots - 1)) / math.log(num_slots)
    assert softmax.ratio.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('softmax', [False, True])
def test_split_cross_entropy__void_and_order_of_slots(softmax):
    logits, targets = _random_case()
    expected = _split(softmax)(logits, targets.masks, targets.void)
    noise = 100 * torch.randn_like(logits) * targets.void[:, None]
    order = torch.randperm(logits.shape[1])
    actual = _split(softmax)((logits + noise)[:, order], targets.masks[:, order], targets.void)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize('softmax', [False, True])
def test_split_cross_entropy__large_logits_stay_finite(softmax):
    # Confidently wrong: slot 0 has so large a logit on the pixel of slot 1 that float64 rounds p to 1.
    logits = torch.tensor([100., -100.]).view(1, 2, 1, 1)
    masks = torch.tensor([0., 1.]).view(1, 2, 1, 1)
    parts = _split(softmax)(logits, masks, torch.zeros(1, 1, 1, dtype=torch.bool))
    distance = 200 if softmax else 100
    assert parts.false_positive.item() == parts.false_negative.item() == pytest.approx(distance, rel=1e-12)


def test_summarize_loss_balance__leaves_out_images_without_labels():
    parts = LossParts(
        torch.tensor([1., 20., 900., 0.], dtype=torch.float64),
        torch.tensor([1., 2., 3., 0.], dtype=torch.float64))
    summary = summarize_loss_balance(parts)
    assert summary['images'] == 3
    assert summary['median'] == 10
    assert summary['share_imbalanced'] == pytest.approx(1 / 3)
    assert (summary['false_positive'], summary['false_negative']) == (307, 2)
    assert '| a | final | 10 | 1.9 to 271 | 33.3% | 307 | 2 |' in format_loss_balance(
        dict(a=dict(final=parts)))
    assert math.isnan(summarize_loss_balance(LossParts(parts.false_positive[3:], parts[1][3:]))['median'])
