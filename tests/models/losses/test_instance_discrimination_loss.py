import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from remax_mm.analysis.training_overhead import TensorMemory
from remax_mm.models.losses import InstanceDiscriminationLoss, pixel_contrast
from remax_mm.models.losses.instance_discrimination_loss import STRIP_ROWS
from tests.worked_example import (random_prediction, random_slot_targets, random_targets, void_targets,
                                  worked_example)


def _reference_pixel_contrast(features: Tensor, owner: Tensor, void: int, temperature: float) -> Tensor:
    """Row by row; features (S, D), owner (S,)."""
    num_pixels = len(features)
    rows = []
    for i in range(num_pixels):
        similarity = [float(features[i] @ features[j]) / temperature for j in range(num_pixels)]
        same = [float(owner[i] == owner[j] != void) for j in range(num_pixels)]
        partition = math.log(sum(math.exp(value) for value in similarity))
        rows.append(sum(t / max(sum(same), 1) * (partition - s) for t, s in zip(same, similarity)))
    return torch.tensor(rows, dtype=features.dtype)


def _inputs(num_pixels: int = 25, dtype: torch.dtype = torch.float64) -> tuple:
    """Unit features (2, S, 3) and owners (2, S) among 4 slots, 4 for void."""
    features = F.normalize(torch.randn(2, num_pixels, 3, dtype=dtype), dim=2)
    return features, torch.randint(0, 5, (2, num_pixels))


def test_pixel_contrast__loops():
    features, owner = _inputs()
    features[0] *= torch.rand(25, 1)  # resized features are shorter than 1
    loss = pixel_contrast(features, owner, 4, 0.3)
    for image in range(2):
        expected = _reference_pixel_contrast(features[image], owner[image], 4, 0.3)
        torch.testing.assert_close(loss[image], expected)


@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize('num_pixels', [25, STRIP_ROWS, 2 * STRIP_ROWS + 70])
@pytest.mark.parametrize('temperature', [0.05, 0.3, 2.0])
def test_pixel_contrast__equals_dense_cross_entropy(num_pixels, temperature, dtype, tolerance):
    # The same loss from the S x S matrix of targets in float64, with its gradient by autograd.
    features, owner = _inputs(num_pixels, dtype)
    features.requires_grad_()
    weight = torch.rand(2, num_pixels, dtype=dtype)
    loss = pixel_contrast(features, owner, 4, temperature)
    gradient, = torch.autograd.grad((weight * loss).sum(), features)

    exact = features.detach().double().requires_grad_()
    same = ((owner[:, :, None] == owner[:, None]) & (owner < 4)[:, None]).double()
    similarity = torch.einsum('bid,bjd->bij', exact, exact) / temperature
    dense = F.cross_entropy(similarity, same / same.sum(1, keepdim=True).clamp(min=1), reduction='none')
    expected, = torch.autograd.grad((weight * dense).sum(), exact)
    assert ((loss - dense).abs() <= tolerance * dense.max()).all()
    assert ((gradient - expected).abs() <= 2 * tolerance * expected.abs().max()).all()


def test_pixel_contrast__gradient():
    features, owner = _inputs(8)
    assert torch.autograd.gradcheck(lambda f: pixel_contrast(f, owner, 4, 0.3), features.requires_grad_())


def test_pixel_contrast__allocates_and_keeps_no_square_matrix():
    num_pixels = 8 * STRIP_ROWS
    features, owner = _inputs(num_pixels, torch.float32)
    features.requires_grad_()
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        with TensorMemory() as memory:
            pixel_contrast(features, owner, 4, 0.3).sum().backward()
    assert max(sizes) <= features.numel()
    assert memory.peak < 4 * 2 * num_pixels * num_pixels / 2  # half of the float32 matrices of both images


def test_instance_discrimination_loss__worked_example():
    prediction, _, targets = worked_example()
    loss = InstanceDiscriminationLoss()
    loss.sampler = lambda targets: torch.arange(5)[None]
    assert loss(prediction, targets).item() == pytest.approx(1.274662, abs=6e-7)

    features = prediction.pixel_feature.flatten(2).transpose(1, 2)
    rows = pixel_contrast(features[:, :5], targets.owner.flatten(1)[:, :5], 3, 0.3)
    expected = torch.tensor([[.959167, 1.534250, 1.341456, 1.341456, 1.196983]]).double()
    torch.testing.assert_close(rows, expected, rtol=0, atol=6e-7)


def test_instance_discrimination_loss__void_pixels_are_only_negatives():
    prediction, _, targets = worked_example()
    loss = InstanceDiscriminationLoss(loss_weight=2.)(prediction, targets)
    features = prediction.pixel_feature[0].flatten(1).T
    rows = _reference_pixel_contrast(features, targets.owner[0].flatten(), 3, 0.3)
    assert rows[5] == 0
    assert loss.item() == pytest.approx(2 * float(rows[:5].mean()), rel=1e-12)


def test_instance_discrimination_loss__samples():
    prediction = random_prediction()
    targets = random_slot_targets(prediction, random_targets())
    loss = InstanceDiscriminationLoss(num_samples=10)
    assert loss(prediction, targets) != loss(prediction, targets)  # new samples in each call

    # No void pixel is sampled, so the values of void pixels have no effect.
    void = targets.void[:, None].expand_as(prediction.pixel_feature)
    marked = prediction._replace(pixel_feature=prediction.pixel_feature.masked_fill(void, float('nan')))
    assert loss(marked, targets).isfinite()


def test_instance_discrimination_loss__permuted_slots():
    prediction, targets = random_prediction(), random_targets()
    order = torch.randperm(6)
    permuted = prediction._replace(
        class_logits=prediction.class_logits[:, order], mask_logits=prediction.mask_logits[:, order])
    loss = InstanceDiscriminationLoss()
    torch.testing.assert_close(
        loss(permuted, random_slot_targets(permuted, targets)),
        loss(prediction, random_slot_targets(prediction, targets)))


def test_instance_discrimination_loss__all_void():
    prediction = random_prediction()
    prediction.pixel_feature.requires_grad_()
    loss = InstanceDiscriminationLoss()(prediction, random_slot_targets(prediction, void_targets()))
    loss.backward()
    assert loss == 0 and not prediction.pixel_feature.grad.any()
