import itertools
import math

import pytest
import torch
from torch import Tensor

from remax_mm.models.losses import SigmoidMaskIDLoss, SoftmaxMaskIDLoss
from remax_mm.structures import MaskPrediction, SlotTargets
from tests.worked_example import (random_prediction, random_slot_targets, random_targets, void_targets,
                                  worked_example)

LOSSES = [
    SoftmaxMaskIDLoss(),
    *(SigmoidMaskIDLoss(slot_reduction=reduction) for reduction in ('sum', 'mean', 'matched'))
]


def _reference_mask_id_loss(logits: Tensor, targets: SlotTargets, reduction: str) -> float:
    num_images, num_slots, height, width = logits.shape
    per_image = []
    for b in range(num_images):
        pixels = []
        for y, x in itertools.product(range(height), range(width)):
            owner = int(targets.owner[b, y, x])
            if owner == num_slots:
                continue
            z, g = logits[b, :, y, x].tolist(), [float(n == owner) for n in range(num_slots)]
            if reduction == 'softmax':
                partition = math.log(sum(math.exp(value) for value in z))
                pixels.append(sum(g[n] * (partition - z[n]) for n in range(num_slots)))
                continue
            matched = targets.mask_weights[b] > 0
            slots = [n for n in range(num_slots) if reduction != 'matched' or matched[n]]
            binary = [
                g[n] * math.log1p(math.exp(-z[n])) + (1 - g[n]) * math.log1p(math.exp(z[n])) for n in slots
            ]
            pixels.append(sum(binary) / (num_slots if reduction == 'mean' else 1))
        per_image.append(sum(pixels) / max(len(pixels), 1))
    return sum(per_image) / num_images


def _reduction(loss: torch.nn.Module) -> str:
    return getattr(loss, 'slot_reduction', 'softmax')


@pytest.mark.parametrize('loss', LOSSES, ids=_reduction)
@pytest.mark.parametrize('num_segments', [3, 9])  # 9 segments are more than the 6 slots
def test_mask_id_loss__loops(loss, num_segments):
    prediction = random_prediction()
    targets = random_slot_targets(prediction, random_targets(num_segments=num_segments))
    expected = 0.3 * _reference_mask_id_loss(prediction.mask_logits, targets, _reduction(loss))
    assert loss(prediction, targets).item() == pytest.approx(expected, rel=1e-12)


def test_mask_id_loss__worked_example():
    prediction, _, targets = worked_example()
    assert SoftmaxMaskIDLoss()(prediction, targets).item() == pytest.approx(.127120, abs=6e-7)
    assert SigmoidMaskIDLoss(loss_weight=1.)(prediction, targets).item() == pytest.approx(1.554935, abs=6e-7)
    mean = SigmoidMaskIDLoss(1., slot_reduction='mean')(prediction, targets)
    assert mean.item() == pytest.approx(.518312, abs=6e-7)


def test_sigmoid_mask_id_loss__ratio_of_false_positives():
    # Fig. 1 of ReMaX: each pixel is negative for 127 slots and positive for one slot; all logits are 0.
    prediction = random_prediction(1,
                                   128)._replace(mask_logits=torch.zeros(1, 128, 5, 5, dtype=torch.float64))
    targets = random_slot_targets(prediction, random_targets(1))
    loss = SigmoidMaskIDLoss(loss_weight=1.)(prediction, targets)
    assert loss.item() == pytest.approx(128 * math.log(2), rel=1e-12)


@pytest.mark.parametrize('loss', LOSSES, ids=_reduction)
def test_mask_id_loss__void_pixels_change_nothing(loss):
    prediction = random_prediction()
    targets = random_slot_targets(prediction, random_targets())
    noise = torch.randn_like(prediction.mask_logits) * targets.void[:, None]
    noisy = prediction._replace(mask_logits=(prediction.mask_logits + 5 * noise).requires_grad_())
    value = loss(noisy, targets)
    torch.testing.assert_close(value, loss(prediction, targets))
    value.backward()
    assert not noisy.mask_logits.grad[targets.void[:, None].expand_as(noise)].any()


@pytest.mark.parametrize('loss', LOSSES, ids=_reduction)
def test_mask_id_loss__permuted_slots(loss):
    prediction, targets = random_prediction(), random_targets()
    order = torch.randperm(6)
    permuted = MaskPrediction(prediction.class_logits[:, order], prediction.mask_logits[:, order], None)
    torch.testing.assert_close(
        loss(permuted, random_slot_targets(permuted, targets)),
        loss(prediction, random_slot_targets(prediction, targets)))


@pytest.mark.parametrize('loss', LOSSES, ids=_reduction)
def test_mask_id_loss__gradient(loss):
    prediction = random_prediction(size=3, num_slots=4)
    targets = random_slot_targets(prediction, random_targets(size=3, num_segments=2))
    assert torch.autograd.gradcheck(lambda logits: loss(prediction._replace(mask_logits=logits), targets),
                                    prediction.mask_logits.clone().requires_grad_())


@pytest.mark.parametrize('loss', LOSSES, ids=_reduction)
def test_mask_id_loss__all_void(loss):
    prediction = random_prediction()
    prediction.mask_logits.requires_grad_()
    value = loss(prediction, random_slot_targets(prediction, void_targets()))
    value.backward()
    assert value == 0 and not prediction.mask_logits.grad.any()


@pytest.mark.parametrize('loss', LOSSES, ids=_reduction)
def test_mask_id_loss__supervises_relaxed_masks(loss):
    prediction = random_prediction()
    targets = random_slot_targets(prediction, random_targets())
    relaxed = prediction._replace(relaxed_mask_logits=3 * prediction.mask_logits)
    assert loss(relaxed,
                targets) == loss(prediction._replace(mask_logits=3 * prediction.mask_logits), targets)


def test_sigmoid_mask_id_loss__unknown_reduction():
    with pytest.raises(ValueError, match='slot_reduction'):
        SigmoidMaskIDLoss(slot_reduction='none')
