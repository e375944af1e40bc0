import itertools
import math

import pytest
import torch

from remax_mm.models.losses import softmax_sums
from tests.worked_example import random_prediction, random_slot_targets, random_targets, void_targets


def _logits_and_targets(size: int = 5) -> tuple:
    prediction = random_prediction(size=size)
    return prediction.mask_logits, random_slot_targets(prediction, random_targets(size=size))


def test_softmax_sums__loops():
    logits, targets = _logits_and_targets()
    log_owner, area = softmax_sums(logits, targets)
    expected_area = torch.zeros(2, 6, dtype=torch.float64)
    for b, y, x in itertools.product(range(2), range(5), range(5)):
        exponentials = [math.exp(z) for z in logits[b, :, y, x].tolist()]
        owner = int(targets.owner[b, y, x])
        if owner == 6:
            assert log_owner[b, y, x] == 0
            continue
        expected = math.log(exponentials[owner] / sum(exponentials))
        assert log_owner[b, y, x].item() == pytest.approx(expected, rel=1e-12)
        expected_area[b] += torch.tensor(exponentials, dtype=torch.float64) / sum(exponentials)
    torch.testing.assert_close(area, expected_area)


def test_softmax_sums__gradient():
    logits, targets = _logits_and_targets(size=3)
    assert targets.void.any() and not targets.void.all()
    assert torch.autograd.gradcheck(lambda z: tuple(softmax_sums(z, targets)), logits.requires_grad_())


def test_softmax_sums__gradient_of_one_of_the_two():
    logits, targets = _logits_and_targets()
    logits.requires_grad_()
    expected = logits.log_softmax(1).exp() * ~targets.void[:, None]
    weight = torch.randn(2, 6, dtype=torch.float64)
    gradient, = torch.autograd.grad((softmax_sums(logits, targets).area * weight).sum(), logits)
    torch.testing.assert_close(gradient,
                               torch.autograd.grad((expected.sum((2, 3)) * weight).sum(), logits)[0])


def test_softmax_sums__improbable_owner():
    # The probability of the owner, e ** -300, is 0 in float32; its logarithm is not.
    logits, targets = _logits_and_targets()
    logits = logits.float()
    logits[:, 2] += 300
    log_owner, _ = softmax_sums(logits.requires_grad_(), targets)
    expected = logits.double().log_softmax(1).gather(1, targets.owner.clamp(max=5)[:, None])[:, 0]
    torch.testing.assert_close(log_owner, expected.masked_fill(targets.void, 0).float())
    assert torch.autograd.grad(log_owner.sum(), logits)[0].isfinite().all()


def test_softmax_sums__all_void():
    logits, _ = _logits_and_targets()
    targets = random_slot_targets(random_prediction(), void_targets())
    log_owner, area = softmax_sums(logits.requires_grad_(), targets)
    (log_owner.sum() + area.sum()).backward()
    assert not log_owner.any() and not area.any() and not logits.grad.any()
