"""ReClass: coverage of the classes, relaxed class targets, and the class loss with them."""
import itertools
import math

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor

from remax_mm.models.losses import PQClassLoss
from remax_mm.models.relaxations.reclass import ReClass, class_coverage, relax_class_targets
from tests.worked_example import random_prediction, random_slot_targets, random_targets, worked_example

WORKED_COVERAGE = torch.tensor([[[.805928, .422980], [.615529, .854810], [.384471, .450087]]]).double()


def _reference_class_coverage(mask_logits: Tensor, sem_seg: Tensor, num_classes: int) -> Tensor:
    num_images, num_slots, height, width = mask_logits.shape
    coverage = torch.zeros(num_images, num_slots, num_classes, dtype=mask_logits.dtype)
    for b, n, k in itertools.product(range(num_images), range(num_slots), range(num_classes)):
        covered, area = 0., 0
        for y, x in itertools.product(range(height), range(width)):
            if sem_seg[b, y, x] == k:
                covered += 1 / (1 + math.exp(-float(mask_logits[b, n, y, x])))
                area += 1
        coverage[b, n, k] = covered / area if area else 0
    return coverage


def test_class_coverage__worked_example():
    prediction, targets, _ = worked_example()
    coverage = class_coverage(prediction.mask_logits, targets.sem_seg, 2)
    torch.testing.assert_close(coverage, WORKED_COVERAGE, rtol=0, atol=6e-7)


def test_class_coverage__loops():
    prediction, targets = random_prediction(), random_targets()
    coverage = class_coverage(prediction.mask_logits, targets.sem_seg, 4)
    torch.testing.assert_close(coverage, _reference_class_coverage(prediction.mask_logits, targets.sem_seg,
                                                                   4))
    assert (coverage >= 0).all() and (coverage <= 1).all()


def test_class_coverage__softmax_over_slots():
    # With a softmax, the slots' probabilities at a pixel sum to 1, and so does the coverage of a class.
    prediction, targets = random_prediction(), random_targets()
    coverage = class_coverage(prediction.mask_logits, targets.sem_seg, 4, 'softmax')
    present = torch.stack([(targets.sem_seg == k).flatten(1).any(1) for k in range(4)], dim=1).double()
    torch.testing.assert_close(coverage.sum(1), present)
    logits_of_softmax = prediction.mask_logits.softmax(1).logit()
    torch.testing.assert_close(coverage, _reference_class_coverage(logits_of_softmax, targets.sem_seg, 4))


def test_class_coverage__void_pixels_and_absent_classes():
    prediction, targets = random_prediction(), random_targets()
    noise = 5 * torch.randn_like(prediction.mask_logits) * targets.void[:, None]
    torch.testing.assert_close(
        class_coverage(prediction.mask_logits + noise, targets.sem_seg, 4),
        class_coverage(prediction.mask_logits, targets.sem_seg, 4))
    assert not class_coverage(prediction.mask_logits, torch.full_like(targets.sem_seg, 4), 4).any()


def test_class_coverage__has_no_gradient():
    prediction, targets = random_prediction(), random_targets()
    assert not class_coverage(prediction.mask_logits.requires_grad_(), targets.sem_seg, 4).requires_grad


def test_relax_class_targets__worked_example():
    _, _, slot_targets = worked_example()
    relaxed = relax_class_targets(slot_targets.class_targets, WORKED_COVERAGE, 0.1)
    expected = torch.tensor([[[1, .042298, 0], [.061553, 1, 0], [.038447, .045009, 1]]]).double()
    torch.testing.assert_close(relaxed, expected, rtol=0, atol=6e-7)


def test_relax_class_targets__loops():
    class_targets = torch.rand(2, 3, 5).softmax(-1)
    coverage = torch.rand(2, 3, 4)
    relaxed = relax_class_targets(class_targets, coverage, 0.3)
    for b, n, k in itertools.product(range(2), range(3), range(4)):
        mix = 0.3 * float(coverage[b, n, k])
        assert relaxed[b, n, k].item() == pytest.approx(
            mix + (1 - mix) * float(class_targets[b, n, k]), rel=1e-6)
    assert torch.equal(relaxed[..., -1], class_targets[..., -1])


def _relax(slot_targets, prediction):
    """Slot targets with the class targets of ReClass in training."""
    class_targets = ReClass().train()(slot_targets.class_targets, prediction.mask_logits,
                                      slot_targets.sem_seg)
    return slot_targets._replace(class_targets=class_targets)


def test_reclass__class_loss_of_the_worked_example():
    prediction, _, slot_targets = worked_example()
    relaxed = _relax(slot_targets, prediction)
    assert PQClassLoss()(prediction, relaxed).item() == pytest.approx(.644983, abs=6e-7)

    # Cross entropy of each slot, times alpha and the class weight
    terms = [.334273 * .75 * .721303, .646941 * .75 * .769719, .680922 * .25 * .532676]
    assert terms == pytest.approx([.180834, .373472, .090678], abs=1e-6)
    assert PQClassLoss(loss_weight=1.)(prediction, relaxed).item() == pytest.approx(sum(terms) / 3, abs=1e-6)


@pytest.mark.parametrize('tf_gradient, first_row', [
    (False, [-.179726, .068714, .111012]),
    (True, [-.213014, .064209, .106507]),
])
def test_reclass__gradient_of_the_class_loss(tf_gradient, first_row):
    prediction, _, slot_targets = worked_example()
    relaxed = _relax(slot_targets, prediction)
    logits = prediction.class_logits.requires_grad_()
    PQClassLoss(tf_gradient=tf_gradient)(prediction, relaxed).backward()
    # Weights of slot 0: loss weight 3, mean over 3 slots, alpha .75, Dice .721303
    expected = torch.tensor(first_row).double() * .75 * .721303
    torch.testing.assert_close(logits.grad[0, 0], expected, rtol=0, atol=1e-6)


def test_reclass__increases_class_targets_and_does_not_change_its_input():
    prediction = random_prediction()
    slot_targets = random_slot_targets(prediction, random_targets())
    before = slot_targets.class_targets.clone()
    relaxed = _relax(slot_targets, prediction)
    assert torch.equal(slot_targets.class_targets, before)
    assert (relaxed.class_targets >= before).all() and (relaxed.class_targets > before).any()


@pytest.mark.parametrize('module', [ReClass().eval(), ReClass(smoothing=0.).train()])
def test_reclass__identity(module):
    prediction = random_prediction()
    slot_targets = random_slot_targets(prediction, random_targets())
    class_targets = slot_targets.class_targets
    assert module(class_targets, prediction.mask_logits, slot_targets.sem_seg) is class_targets
    assert not list(module.parameters()) and not module.state_dict()


def test_reclass__permuted_slots():
    prediction, targets = random_prediction(), random_targets()
    order = torch.randperm(6)
    unpermuted = _relax(random_slot_targets(prediction, targets), prediction)
    permuted = prediction._replace(
        class_logits=prediction.class_logits[:, order], mask_logits=prediction.mask_logits[:, order])
    relaxed = _relax(random_slot_targets(permuted, targets), permuted)
    torch.testing.assert_close(relaxed.class_targets, unpermuted.class_targets[:, order])


@pytest.mark.parametrize('settings', [dict(smoothing=-.1), dict(smoothing=1.1), dict(activation='tanh')])
def test_reclass__settings_out_of_range(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        ReClass(**settings)
    with pytest.raises(TypeError):
        MODELS.build(dict(type='ReClass', eta=0.1))
