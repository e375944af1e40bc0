import itertools
import math

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor

from remax_mm.models.losses import PQClassLoss, PQMaskLoss, dice_loss, soft_cross_entropy
from remax_mm.structures import MaskPrediction, SlotTargets
from tests.worked_example import (random_prediction, random_slot_targets, random_targets, targets_of,
                                  void_targets, worked_example)

# Eq. 4 of ReMaX for the worked example, see test_reclass.py
RELAXED_TARGETS = torch.tensor([[[1, .0422980, 0], [.0615529, 1, 0], [.0384471, .0450087, 1]]]).double()


def _reference_class_loss(logits: Tensor, targets: SlotTargets, alpha: float) -> float:
    per_image = []
    for b in range(logits.shape[0]):
        terms = []
        for n in range(logits.shape[1]):
            exponentials = [math.exp(z) for z in logits[b, n].tolist()]
            cross_entropy = sum(-y * math.log(e / sum(exponentials))
                                for y, e in zip(targets.class_targets[b, n].tolist(), exponentials))
            balance = 1 - alpha if targets.class_targets[b, n, -1] == 1 else alpha
            terms.append(balance * float(targets.class_weights[b, n]) * cross_entropy)
        nonzero = [term for term in terms if term != 0]
        per_image.append(sum(terms) / max(len(nonzero), 1))
    return sum(per_image) / len(per_image)


def _reference_mask_loss(masks: Tensor, targets: SlotTargets, alpha: float) -> float:
    num_images, num_slots, height, width = masks.shape
    per_image = []
    for b in range(num_images):
        total = 0.
        for n in range(num_slots):
            area = target_area = intersection = 0.
            for y, x in itertools.product(range(height), range(width)):
                p, g = float(masks[b, n, y, x]), float(targets.owner[b, y, x] == n)
                if targets.owner[b, y, x] == num_slots:
                    p = 0.
                area, target_area, intersection = area + p, target_area + g, intersection + p * g
            dice = (2 * intersection + 1) / (area + target_area + 1)
            total += float(targets.mask_weights[b, n]) * (1 - dice)
        per_image.append(total * alpha / num_slots)
    return sum(per_image) / len(per_image)


def test_soft_cross_entropy__worked_example():
    prediction, _, targets = worked_example()
    loss = soft_cross_entropy(prediction.class_logits, targets.class_targets)
    torch.testing.assert_close(loss, torch.tensor([[.239545, .551445, .551445]]).double(), rtol=0, atol=6e-7)


@pytest.mark.parametrize('tf_gradient, first_row', [
    (False, [-.179726, .068714, .111012]),
    (True, [-.213014, .064209, .106507]),
])
def test_soft_cross_entropy__targets_that_sum_to_more_than_one(tf_gradient, first_row):
    logits = worked_example().prediction.class_logits.requires_grad_()
    loss = soft_cross_entropy(logits, RELAXED_TARGETS, tf_gradient)
    torch.testing.assert_close(loss, torch.tensor([[.334273, .646941, .680922]]).double(), rtol=0, atol=6e-7)
    loss.sum().backward()
    torch.testing.assert_close(logits.grad[0, 0], torch.tensor(first_row).double(), rtol=0, atol=6e-7)


def test_soft_cross_entropy__tf_gradient_of_a_distribution_is_exact():
    logits = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(3, 4, 5, dtype=torch.float64).softmax(-1)
    exact, = torch.autograd.grad(soft_cross_entropy(logits, targets).sum(), logits)
    tensorflow, = torch.autograd.grad(soft_cross_entropy(logits, targets, tf_gradient=True).sum(), logits)
    torch.testing.assert_close(tensorflow, exact)


def test_dice_loss__worked_example():
    prediction, _, targets = worked_example()
    masks = prediction.mask_logits.softmax(1)[0].flatten(1)
    intersection = torch.stack([masks[0, :2].sum(), masks[1, 2:5].sum()])
    loss = dice_loss(intersection, masks[:2, :5].sum(1), targets.area[0, :2])
    torch.testing.assert_close(loss, torch.tensor([.216907, .196159]).double(), rtol=0, atol=6e-7)


def test_pq_mask_loss__deeplab2():
    # deeplab2, model/loss/base_loss_test.py: A is row 0, B rows 1 and 2; predicted A is columns 0 and 1.
    # Pixels of A: 6 predicted, 3 true, 2 in both; of B: 3 predicted, 6 true, 2 in both. Each loss is
    # 1 - (2 * 2 + 1) / (9 + 1).
    owner = torch.tensor([[[0, 0, 0], [1, 1, 1], [1, 1, 1]]])
    predicted = torch.zeros(1, 2, 3, 3)
    predicted[0, 0, :, :2] = predicted[0, 1, :, 2] = 1
    class_logits = torch.tensor([[[9., 0, 0], [0, 9., 0]]])  # so that A gets slot 0
    prediction = MaskPrediction(class_logits, 100 * predicted, None)
    targets = random_slot_targets(prediction, targets_of(owner, torch.tensor([[0, 1]]), 2))
    targets = targets._replace(mask_weights=torch.ones(1, 2))
    assert torch.equal(targets.owner, owner)
    assert PQMaskLoss(alpha=1., loss_weight=1.)(prediction, targets).item() == pytest.approx(0.5)


def test_pq_class_loss__worked_example():
    prediction, _, targets = worked_example()
    assert PQClassLoss()(prediction, targets).item() == pytest.approx(.521366, abs=6e-7)


@pytest.mark.parametrize('alpha', [.75, .4])
def test_pq_class_loss__loops(alpha):
    prediction = random_prediction()
    targets = random_slot_targets(prediction, random_targets())
    targets.class_targets[:, :, :-1] += 0.1 * torch.rand(2, 6, 4)
    targets.class_weights[0, 0] = 0  # excluded from the mean
    loss = PQClassLoss(alpha, loss_weight=2.)(prediction, targets)
    expected = 2 * _reference_class_loss(prediction.class_logits, targets, alpha)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_pq_mask_loss__worked_example():
    prediction, _, targets = worked_example()
    assert PQMaskLoss()(prediction, targets).item() == pytest.approx(.212785, abs=6e-7)
    # sigmoid: (.786986 * .281779 + .576117 * .213794) * .75 / 3 * 3
    expected = (.786986 * .281779 + .576117 * .213794) * .75
    assert PQMaskLoss('sigmoid')(prediction, targets).item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize('activation', ['softmax', 'sigmoid'])
def test_pq_mask_loss__loops(activation):
    prediction = random_prediction()
    targets = random_slot_targets(prediction, random_targets())
    logits = prediction.mask_logits
    masks = logits.softmax(1) if activation == 'softmax' else logits.sigmoid()
    loss = PQMaskLoss(activation, alpha=.6, loss_weight=2.)(prediction, targets)
    assert loss.item() == pytest.approx(2 * _reference_mask_loss(masks, targets, .6), rel=1e-12)


def test_pq_mask_loss__supervises_relaxed_masks():
    prediction = random_prediction()
    targets = random_slot_targets(prediction, random_targets())
    relaxed = prediction._replace(relaxed_mask_logits=3 * prediction.mask_logits)
    tripled = prediction._replace(mask_logits=3 * prediction.mask_logits)
    assert PQMaskLoss()(relaxed, targets) == PQMaskLoss()(tripled, targets)


@pytest.mark.parametrize('activation', ['softmax', 'sigmoid'])
def test_pq_mask_loss__void_pixels_change_nothing(activation):
    prediction = random_prediction()
    targets = random_slot_targets(prediction, random_targets())
    noise = torch.randn_like(prediction.mask_logits) * targets.void[:, None]
    noisy = prediction._replace(mask_logits=(prediction.mask_logits + 5 * noise).requires_grad_())
    loss = PQMaskLoss(activation)(noisy, targets)
    torch.testing.assert_close(loss, PQMaskLoss(activation)(prediction, targets))
    loss.backward()
    assert not noisy.mask_logits.grad[targets.void[:, None].expand_as(noise)].any()


@pytest.mark.parametrize('loss', [PQClassLoss(), PQMaskLoss(), PQMaskLoss('sigmoid')])
def test_pq_losses__permuted_slots(loss):
    prediction, targets = random_prediction(), random_targets()
    order = torch.randperm(6)
    permuted = MaskPrediction(prediction.class_logits[:, order], prediction.mask_logits[:, order], None)
    torch.testing.assert_close(
        loss(permuted, random_slot_targets(permuted, targets)),
        loss(prediction, random_slot_targets(prediction, targets)))


@pytest.mark.parametrize('loss', [PQClassLoss(), PQMaskLoss(), PQMaskLoss('sigmoid')])
def test_pq_losses__gradient(loss):
    prediction = random_prediction(size=3, num_slots=4)
    targets = random_slot_targets(prediction, random_targets(size=3, num_segments=2))

    def of_logits(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
        return loss(MaskPrediction(class_logits, mask_logits, None), targets)

    inputs = [prediction.class_logits.requires_grad_(), prediction.mask_logits.requires_grad_()]
    assert torch.autograd.gradcheck(of_logits, inputs)


def test_pq_losses__image_without_segments():
    prediction = random_prediction()
    slot_targets = random_slot_targets(prediction, void_targets())
    prediction.mask_logits.requires_grad_()
    loss = PQMaskLoss()(prediction, slot_targets)
    loss.backward()
    assert loss == 0 and not prediction.mask_logits.grad.any()

    # The target of every slot is void. Its weight, the void ratio, is area / (area + 1e-5).
    void_probability = prediction.class_logits.softmax(-1)[..., -1]
    area = prediction.mask_logits.softmax(1).sum((2, 3))
    expected = (3 * .25 * -void_probability.log() * area / (area + 1e-5)).mean()
    torch.testing.assert_close(PQClassLoss()(prediction, slot_targets), expected)


def test_pq_losses__wrong_settings():
    with pytest.raises(ValueError, match='activation'):
        PQMaskLoss(activation='tanh')
    with pytest.raises(TypeError):
        MODELS.build(dict(type='PQClassLoss', gamma=2.))
