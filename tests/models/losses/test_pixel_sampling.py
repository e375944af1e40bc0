import pytest
import torch
import torch.nn.functional as F

from remax_mm.models.losses.pixel_sampling import (PixelSampler, gather_pixels, gather_resized,
                                                   mean_over_nonzero, sample_pixels)
from tests.worked_example import random_prediction, random_slot_targets, random_targets, worked_example


def test_sample_pixels__without_replacement_and_void_last():
    void = torch.rand(4, 5, 5) < 0.4
    inverse_area = 25 / torch.randint(1, 20, (4, 5, 5)).float()
    valid = int((~void).flatten(1).sum(1).min())
    few = sample_pixels(inverse_area, void, valid, 1.5)
    assert few.shape == (4, valid)
    assert not void.flatten(1).gather(1, few).any()

    all_pixels = sample_pixels(inverse_area, void, 25, 1.5)
    assert torch.equal(all_pixels.sort(dim=1).values, torch.arange(25).expand(4, 25))
    for image in range(4):
        drawn = void[image].flatten()[all_pixels[image]]
        assert torch.equal(drawn, drawn.sort().values)  # False before True


@pytest.mark.parametrize('temperature', [0., 1., 1.5])
def test_sample_pixels__odds(temperature):
    # With inverse areas r = 3, 3, 2, 2, 2, pixel i is drawn first with probability r_i^T / sum_j r_j^T.
    _, _, targets = worked_example()
    num_draws = 40000
    inverse_area = targets.inverse_area.expand(num_draws, -1, -1)
    first = sample_pixels(inverse_area, targets.void.expand(num_draws, -1, -1), 1, temperature)
    frequency = first.flatten().bincount(minlength=6) / num_draws

    odds = torch.tensor([3., 3, 2, 2, 2, 0])**temperature * torch.tensor([1., 1, 1, 1, 1, 0])
    probability = odds / odds.sum()
    deviation = (probability * (1 - probability) / num_draws).sqrt()
    assert ((frequency - probability).abs() <= 4 * deviation).all()


def test_pixel_sampler__all_pixels_or_some():
    targets = random_slot_targets(random_prediction(), random_targets())
    assert PixelSampler(0, 1.)(targets) is None
    assert PixelSampler(25, 1.)(targets) is None
    assert PixelSampler(4096, 1.)(targets) is None
    assert PixelSampler(24, 1.)(targets).shape == (2, 24)


def test_pixel_sampler__negative_number():
    with pytest.raises(ValueError, match='num_samples'):
        PixelSampler(-1, 1.)


def test_gather_pixels__maps_and_channels():
    values = torch.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2)
    indices = torch.tensor([[3, 0], [1, 1]])
    assert gather_pixels(values, indices).tolist() == [[[3, 0], [7, 4], [11, 8]],
                                                       [[13, 13], [17, 17], [21, 21]]]
    assert gather_pixels(values[:, 0], indices).tolist() == [[3, 0], [13, 13]]
    assert torch.equal(gather_pixels(values, None), values.flatten(2))
    assert torch.equal(gather_pixels(values[:, 0], None), values[:, 0].flatten(1))


@pytest.mark.parametrize('size', [(3, 5), (9, 17), (17, 17), (7, 11), (9, 5), (1, 1)])
def test_gather_resized__equals_resize_and_gather(size):
    features = torch.randn(2, 4, 9, 5, dtype=torch.float64, requires_grad=True)
    indices = torch.randint(0, size[0] * size[1], (2, 50))
    resized = F.interpolate(features, size=size, mode='bilinear', align_corners=True)
    expected = gather_pixels(resized, indices).transpose(1, 2)
    values = gather_resized(features, size, indices)
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(gather_resized(features, size, None), resized.flatten(2).transpose(1, 2))

    weight = torch.randn_like(values)
    gradient, = torch.autograd.grad((values * weight).sum(), features)
    torch.testing.assert_close(gradient, torch.autograd.grad((expected * weight).sum(), features)[0])


def test_mean_over_nonzero__by_hand():
    # (1 + 3) / 2, (0) / 1, (-2 + 4 + 1) / 3, then over the images: (2 + 0 + 1) / 3
    loss = torch.tensor([[1., 0, 3], [0, 0, 0], [-2, 4, 1]], requires_grad=True)
    mean = mean_over_nonzero(loss)
    assert mean.item() == pytest.approx(1)
    mean.backward()
    expected = torch.tensor([[1 / 2] * 3, [1] * 3, [1 / 3] * 3]) / 3
    torch.testing.assert_close(loss.grad, expected)
