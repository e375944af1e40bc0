import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from remax_mm.models.losses import MeanEmbeddingDiscriminationLoss, mean_embedding_contrast
from tests.worked_example import (random_prediction, random_slot_targets, random_targets, void_targets,
                                  worked_example)


def _reference_contrast(features: Tensor, owner: Tensor, num_slots: int, temperature: float) -> Tensor:
    """Pixel by pixel; features (D, P), owner (P,)."""
    masks = torch.stack([owner == slot for slot in range(num_slots)]).to(features)
    means = []
    for mask in masks:
        total = sum(share * feature for share, feature in zip(mask, features.T))
        means.append(total / total.norm() if mask.any() else None)
    rows = []
    for pixel, feature in enumerate(features.T):
        logits = [None if mean is None else float(feature @ mean) / temperature for mean in means]
        partition = math.log(sum(math.exp(logit) for logit in logits if logit is not None))
        rows.append(
            sum(
                float(masks[slot, pixel]) * (partition - logit) for slot, logit in enumerate(logits)
                if logit is not None))
    return torch.tensor(rows, dtype=features.dtype)


def test_mean_embedding_contrast__loops():
    prediction = random_prediction()
    targets = random_slot_targets(prediction, random_targets())
    features, owner = prediction.pixel_feature.flatten(2), targets.owner.flatten(1)
    loss = mean_embedding_contrast(features, owner, targets.area, 0.3)
    for image in range(2):
        expected = _reference_contrast(features[image], owner[image], 6, 0.3)
        torch.testing.assert_close(loss[image], expected)


def test_mean_embedding_contrast__worked_example():
    prediction, _, targets = worked_example()
    rows = mean_embedding_contrast(
        prediction.pixel_feature.flatten(2), targets.owner.flatten(1), targets.area, 0.3)
    expected = torch.tensor([[.024914, .373273, .157488, .157488, .026357, 0]]).double()
    torch.testing.assert_close(rows, expected, rtol=0, atol=6e-7)


def test_mean_embedding_contrast__gradient():
    # The gradient includes the path through the mean features.
    features = random_prediction().pixel_feature.flatten(2)[..., :8].clone().requires_grad_()
    owner = torch.tensor([[0, 2, 2, 3, 0, 0, 2, 2], [1, 1, 3, 3, 1, 0, 0, 0]])  # slot 3 is void
    area = torch.tensor([[3., 0, 4], [3, 3, 0]])
    assert torch.autograd.gradcheck(lambda f: mean_embedding_contrast(f, owner, area, 0.3), features)


def test_mean_embedding_discrimination_loss__worked_example():
    prediction, _, targets = worked_example()
    loss = MeanEmbeddingDiscriminationLoss(num_things_classes=2)
    assert loss(prediction, targets).item() == pytest.approx(.147904, abs=6e-7)
    heavier = MeanEmbeddingDiscriminationLoss(num_things_classes=2, loss_weight=3.)
    assert heavier(prediction, targets).item() == pytest.approx(3 * .147904, abs=2e-6)


def test_mean_embedding_discrimination_loss__only_thing_pixels_have_a_loss():
    # Class 1 is stuff: its three pixels have no loss, but its mean feature is a negative for the others.
    prediction, _, targets = worked_example()
    loss = MeanEmbeddingDiscriminationLoss(num_things_classes=1)(prediction, targets)
    assert loss.item() == pytest.approx((.024914 + .373273) / 2, abs=1e-6)


def test_mean_embedding_discrimination_loss__segments_without_a_slot_are_void():
    prediction, _, targets = worked_example()
    lost = targets._replace(owner=targets.owner.masked_fill(targets.owner == 0, 3), area=targets.area.clone())
    lost.area[:, 0] = 0
    loss = MeanEmbeddingDiscriminationLoss(num_things_classes=2)(prediction, lost)
    assert loss.item() == 0  # a single segment has no negatives


def test_mean_embedding_discrimination_loss__permuted_slots():
    prediction, targets = random_prediction(), random_targets()
    order = torch.randperm(6)
    permuted = prediction._replace(
        class_logits=prediction.class_logits[:, order], mask_logits=prediction.mask_logits[:, order])
    loss = MeanEmbeddingDiscriminationLoss(num_things_classes=2)
    torch.testing.assert_close(
        loss(permuted, random_slot_targets(permuted, targets)),
        loss(prediction, random_slot_targets(prediction, targets)))


def test_mean_embedding_discrimination_loss__all_void():
    prediction = random_prediction()
    prediction.pixel_feature.requires_grad_()
    loss = MeanEmbeddingDiscriminationLoss(2)(prediction, random_slot_targets(prediction, void_targets()))
    loss.backward()
    assert loss == 0 and not prediction.pixel_feature.grad.any()


def test_mean_embedding_discrimination_loss__gradient_descent_separates_segments():
    # Gradient descent on this loss makes the pixels of a segment similar and separates the segments.
    prediction = random_prediction()
    targets = random_slot_targets(prediction, random_targets())
    raw = prediction.pixel_feature.clone().requires_grad_()
    loss = MeanEmbeddingDiscriminationLoss(num_things_classes=4)
    values = []
    for _ in range(60):
        value = loss(prediction._replace(pixel_feature=F.normalize(raw, dim=1)), targets)
        raw.data -= 10 * torch.autograd.grad(value, raw)[0]
        values.append(value.item())
    assert values[-1] < 0.3 * values[0]
