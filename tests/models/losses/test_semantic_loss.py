import itertools
import math

import pytest
import torch
from torch import Tensor

from remax_mm.models.losses import BinarySemanticLoss, SemanticLoss, UpsampledSemanticLoss
from remax_mm.models.losses.semantic_loss import pick_semantic_pixels
from remax_mm.structures import SlotTargets
from tests.worked_example import random_prediction, random_slot_targets, random_targets

NUM_CLASSES = 4
LOSSES = [SemanticLoss, BinarySemanticLoss]


def _reference_semantic_loss(logits: Tensor, labels: Tensor, binary: bool) -> float:
    per_image = []
    for b in range(logits.shape[0]):
        pixels = []
        for y, x in itertools.product(range(logits.shape[2]), range(logits.shape[3])):
            label, z = int(labels[b, y, x]), logits[b, :, y, x].tolist()
            if label == NUM_CLASSES:
                continue
            if binary:
                pixels.append(sum(math.log1p(math.exp(-v if k == label else v)) for k, v in enumerate(z)))
            else:
                pixels.append(math.log(sum(math.exp(v) for v in z)) - z[label])
        per_image.append(sum(pixels) / max(len(pixels), 1))
    return sum(per_image) / len(per_image)


def _slot_targets(size: int = 5) -> SlotTargets:
    return random_slot_targets(random_prediction(size=size), random_targets(size=size))


@pytest.mark.parametrize('loss_class', LOSSES)
@pytest.mark.parametrize('num_columns', [NUM_CLASSES, NUM_CLASSES + 1, NUM_CLASSES + 3])
@pytest.mark.parametrize('size', [9, 5, 3, 2])
def test_semantic_loss__loops(loss_class, num_columns, size):
    targets = _slot_targets(size=9)
    stride = 8 // (size - 1)
    logits = torch.randn(2, num_columns, size, size, dtype=torch.float64)
    expected = 0.5 * _reference_semantic_loss(logits, targets.sem_seg[:, ::stride, ::stride], loss_class
                                              is BinarySemanticLoss)
    assert loss_class(loss_weight=0.5)(logits, targets).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('loss_class', LOSSES)
def test_semantic_loss__given_samples(loss_class):
    targets = _slot_targets()
    logits = torch.randn(2, NUM_CLASSES, 5, 5, dtype=torch.float64)
    indices = torch.tensor([[3, 20, 7, 7], [0, 24, 1, 12]])
    loss = loss_class(num_samples=4)
    loss.sampler = lambda targets: indices
    picked = torch.stack([logits[b].flatten(1)[:, indices[b]] for b in range(2)])[:, :, None]
    labels = torch.stack([targets.sem_seg[b].flatten()[indices[b]] for b in range(2)])[:, None]
    expected = _reference_semantic_loss(picked, labels, loss_class is BinarySemanticLoss)
    assert loss(logits, targets).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('loss_class', LOSSES)
def test_semantic_loss__samples_at_the_resolution_of_the_logits(loss_class):
    targets = _slot_targets(size=9)
    void = targets.void[:, ::2, ::2]
    logits = torch.randn(2, NUM_CLASSES, 5, 5).masked_fill(void[:, None], float('nan'))
    loss = loss_class(num_samples=int((~void).flatten(1).sum(1).min()))
    assert loss(logits, targets).isfinite()  # no void pixel is sampled
    assert loss_class(num_samples=5)(logits, targets) != loss_class(num_samples=5)(logits, targets)


@pytest.mark.parametrize('loss_class', LOSSES)
def test_semantic_loss__void_pixels_change_nothing(loss_class):
    targets = _slot_targets()
    logits = torch.randn(2, NUM_CLASSES, 5, 5)
    noisy = (logits + torch.randn_like(logits) * targets.void[:, None]).requires_grad_()
    value = loss_class()(noisy, targets)
    torch.testing.assert_close(value, loss_class()(logits, targets))
    value.backward()
    assert not noisy.grad[targets.void[:, None].expand_as(noisy)].any()


@pytest.mark.parametrize('loss_class', LOSSES)
def test_semantic_loss__all_void(loss_class):
    targets = _slot_targets()
    targets = targets._replace(sem_seg=torch.full_like(targets.sem_seg, NUM_CLASSES))
    logits = torch.randn(2, NUM_CLASSES, 5, 5, requires_grad=True)
    value = loss_class()(logits, targets)
    value.backward()
    assert value == 0 and not logits.grad.any()


@pytest.mark.parametrize('loss_class', LOSSES)
def test_semantic_loss__gradient(loss_class):
    targets = _slot_targets(size=5)
    logits = torch.randn(2, NUM_CLASSES + 1, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss_class()(x, targets), logits)


def test_binary_semantic_loss__depends_on_the_level_of_the_logits():
    targets = _slot_targets()
    logits = torch.randn(2, NUM_CLASSES, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(SemanticLoss()(logits + 3, targets), SemanticLoss()(logits, targets))
    assert BinarySemanticLoss()(logits + 3, targets) > BinarySemanticLoss()(logits, targets)


def test_upsampled_semantic_loss__by_hand():
    # The distance of the two logits is two ground-truth pixels: the pixel in between has their mean.
    targets = _slot_targets(size=3)
    sem_seg = torch.tensor([[[0, 1, NUM_CLASSES]] * 3] * 2)
    targets = targets._replace(sem_seg=sem_seg)
    logits = torch.zeros(2, NUM_CLASSES, 2, 2, dtype=torch.float64)
    logits[:, 1, :, 1] = 4.0
    first = math.log(4)
    between = math.log(3 + math.exp(2)) - 2
    loss = UpsampledSemanticLoss(loss_weight=0.5)
    assert loss(logits, targets).item() == pytest.approx(0.5 * (first + between) / 2, rel=1e-12)


def test_upsampled_semantic_loss__equals_semantic_loss_at_full_resolution():
    targets, logits = _slot_targets(size=5), torch.randn(2, NUM_CLASSES, 5, 5)
    assert torch.equal(UpsampledSemanticLoss()(logits, targets), SemanticLoss()(logits, targets))
    torch.manual_seed(3)
    sampled = UpsampledSemanticLoss(num_samples=7)(logits, targets)
    torch.manual_seed(3)
    assert torch.equal(sampled, SemanticLoss(num_samples=7)(logits, targets))


@pytest.mark.parametrize('size', [(4, 4), (9, 5), (17, 17), (1, 1), (5, 3), (10, 10)])
@pytest.mark.parametrize('loss_class', LOSSES)
def test_semantic_loss__no_common_stride(loss_class, size):
    with pytest.raises(ValueError, match=r'ground truth of \(9, 9\) and a prediction of \(' + str(size[0])):
        loss_class()(torch.randn(2, NUM_CLASSES, *size), _slot_targets(size=9))


def test_pick_semantic_pixels__samples_from_every_second_pixel():
    targets, sampled_from = _slot_targets(size=9), []
    _, labels = pick_semantic_pixels(torch.randn(2, NUM_CLASSES, 5, 5), targets, sampled_from.append)
    strided, = sampled_from
    for y, x in itertools.product(range(5), range(5)):
        for name in ('sem_seg', 'owner', 'void', 'inverse_area'):
            assert torch.equal(getattr(strided, name)[:, y, x], getattr(targets, name)[:, 2 * y, 2 * x])
        assert torch.equal(labels[:, 5 * y + x], targets.sem_seg[:, 2 * y, 2 * x])


@pytest.mark.parametrize('loss_class', LOSSES)
def test_semantic_loss__too_few_classes(loss_class):
    with pytest.raises(ValueError, match='at least 4 classes, but got 3'):
        loss_class()(torch.randn(2, 3, 5, 5), _slot_targets())
