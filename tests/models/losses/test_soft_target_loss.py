"""The class loss with soft targets, compared with a loop and with mmdet's loss."""
import math

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses import CrossEntropyLoss
from mmdet.registry import MODELS

from remax_mm.models.losses import SoftTargetCrossEntropyLoss

CLASS_WEIGHT = [1.0, 0.5, 2.0, 0.1]


def _loss(**options):
    return SoftTargetCrossEntropyLoss(class_weight=CLASS_WEIGHT, loss_weight=2.0, **options)


def _rows(count: int = 7):
    return torch.randn(count, 4, dtype=torch.float64), torch.randint(0, 4, (count, ))


@pytest.mark.parametrize('avg_factor', [None, 3.7])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_soft_target_loss__equals_mmdets_loss_for_hard_targets(avg_factor, dtype):
    logits, labels = _rows()
    logits = logits.to(dtype).requires_grad_()
    mmdets = CrossEntropyLoss(class_weight=CLASS_WEIGHT, loss_weight=2.0)
    expected = mmdets(logits, labels, torch.ones(7), avg_factor=avg_factor)
    gradient, = torch.autograd.grad(expected, logits)

    by_label = _loss()(logits, labels, torch.ones(7), avg_factor=avg_factor)
    assert torch.equal(by_label, expected)
    by_target = _loss()(logits, labels, F.one_hot(labels, 4).to(dtype), avg_factor=avg_factor)
    torch.testing.assert_close(by_target, expected, rtol=1e-7, atol=0)
    torch.testing.assert_close(torch.autograd.grad(by_target, logits)[0], gradient, rtol=1e-6, atol=1e-7)


def test_soft_target_loss__loops():
    logits, labels = _rows()
    targets = torch.rand(7, 4, dtype=torch.float64)
    expected = 0.
    for row, target in zip(logits.tolist(), targets.tolist()):
        total = sum(math.exp(value) for value in row)
        for value, share, weight in zip(row, target, CLASS_WEIGHT):
            expected -= weight * share * math.log(math.exp(value) / total)
    assert _loss()(logits, labels, targets, avg_factor=5.).item() == pytest.approx(2 * expected / 5, rel=1e-6)
    assert _loss()(logits, labels, targets).item() == pytest.approx(2 * expected / 7, rel=1e-12)
    rows = _loss()(logits, labels, targets, reduction_override='none')
    assert rows.shape == (7, ) and rows.sum().item() == pytest.approx(2 * expected, rel=1e-12)


def test_soft_target_loss__worked_example():
    # Two classes and void with the relaxed targets of the worked example, every weight 1.
    logits = torch.tensor([[2., 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    targets = torch.tensor([[1, .042298, 0], [.061553, 1, 0], [.038447, .045009, 1]], dtype=torch.float64)
    loss = SoftTargetCrossEntropyLoss(reduction='none')(logits, torch.arange(3), targets)
    torch.testing.assert_close(
        loss, torch.tensor([.334273, .646941, .680922], dtype=torch.float64), rtol=0, atol=2e-6)


def test_soft_target_loss__gradient():
    logits, labels = _rows(3)
    targets = torch.rand(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: _loss()(x, labels, targets), logits.requires_grad_())


def test_soft_target_loss__wrong_settings():
    with pytest.raises(ValueError, match='use_sigmoid'):
        MODELS.build(dict(type='SoftTargetCrossEntropyLoss', use_sigmoid=True))
    with pytest.raises(TypeError, match='ignore_index'):
        MODELS.build(dict(type='SoftTargetCrossEntropyLoss', ignore_index=3))
