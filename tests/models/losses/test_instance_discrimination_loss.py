import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from remax_mm.models.losses import InstanceDiscriminationLoss, pixel_contrast
from tests.worked_example import random_prediction, random_slot_targets, random_targets, worked_example


def _reference_pixel_contrast(features: Tensor, masks: Tensor, temperature: float) -> Tensor:
    """Row by row; features (D, S), masks (N, S)."""
    num_pixels = features.shape[1]
    rows = []
    for i in range(num_pixels):
        similarity = [float(features[:, i] @ features[:, j]) / temperature for j in range(num_pixels)]
        same = [float(masks[:, i] @ masks[:, j]) for j in range(num_pixels)]
        partition = math.log(sum(math.exp(value) for value in similarity))
        rows.append(sum(t / max(sum(same), 1) * (partition - s) for t, s in zip(same, similarity)))
    return torch.tensor(rows, dtype=features.dtype)


def _flat_inputs(overlap: bool = False) -> tuple:
    prediction = random_prediction()
    targets = random_slot_targets(prediction, random_targets(overlap=overlap))
    return prediction.pixel_feature.flatten(2), targets.masks.flatten(2)


@pytest.mark.parametrize('overlap', [False, True])
def test_pixel_contrast__loops(overlap):
    features, masks = _flat_inputs(overlap)
    loss = pixel_contrast(features, masks, 0.3)
    for image in range(2):
        torch.testing.assert_close(loss[image], _reference_pixel_contrast(features[image], masks[image], 0.3))


@pytest.mark.parametrize('overlap', [False, True])
def test_pixel_contrast__equals_dense_cross_entropy(overlap):
    # The same loss from the S x S matrix of targets, with its gradient by autograd.
    features, masks = _flat_inputs(overlap)
    features.requires_grad_()
    weight = torch.randn(2, 25, dtype=torch.float64)
    loss = pixel_contrast(features, masks, 0.3)
    gradient, = torch.autograd.grad((weight * loss).sum(), features)

    same = torch.einsum('bni,bnj->bij', masks, masks)
    similarity = torch.einsum('bdi,bdj->bij', features, features) / 0.3
    dense = F.cross_entropy(similarity, same / same.sum(1, keepdim=True).clamp(min=1), reduction='none')
    expected, = torch.autograd.grad((weight * dense).sum(), features)
    torch.testing.assert_close(loss, dense)
    torch.testing.assert_close(gradient, expected)


def test_pixel_contrast__gradient():
    features, masks = _flat_inputs(overlap=True)
    features = features[..., :8].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: pixel_contrast(f, masks[..., :8], 0.3), features)


def test_pixel_contrast__keeps_no_square_matrix():
    features = F.normalize(torch.randn(2, 4, 64), dim=1).requires_grad_()
    masks = F.one_hot(torch.randint(0, 6, (2, 64)), 6).transpose(1, 2).float()
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        pixel_contrast(features, masks, 0.3)
    assert max(sizes) < 64 * 64


def test_instance_discrimination_loss__worked_example():
    prediction, _, targets = worked_example()
    loss = InstanceDiscriminationLoss()
    loss.sampler = lambda targets: torch.arange(5)[None]
    assert loss(prediction, targets).item() == pytest.approx(1.274662, abs=6e-7)

    rows = pixel_contrast(
        prediction.pixel_feature.flatten(2)[..., :5],
        targets.masks.flatten(2)[..., :5], 0.3)
    expected = torch.tensor([[.959167, 1.534250, 1.341456, 1.341456, 1.196983]]).double()
    torch.testing.assert_close(rows, expected, rtol=0, atol=6e-7)


def test_instance_discrimination_loss__void_pixels_are_only_negatives():
    prediction, _, targets = worked_example()
    loss = InstanceDiscriminationLoss(loss_weight=2.)(prediction, targets)
    rows = _reference_pixel_contrast(prediction.pixel_feature[0].flatten(1), targets.masks[0].flatten(1), 0.3)
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
    prediction, targets = random_prediction(), random_targets()
    targets = targets._replace(
        masks=targets.masks * 0, labels=targets.labels * 0 + 4, void=targets.void | True)
    prediction.pixel_feature.requires_grad_()
    loss = InstanceDiscriminationLoss()(prediction, random_slot_targets(prediction, targets))
    loss.backward()
    assert loss == 0 and not prediction.pixel_feature.grad.any()
