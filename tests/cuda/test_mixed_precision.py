"""Training steps under autocast, and with the optimizer wrapper of ``tools/train.py --amp``."""
import math

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from remax_mm.apis.run_config import use_mixed_precision
from tests.cuda.models import HEADS, assert_all_close, build_model, training_batch, training_step

by_dtype = pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)


@by_dtype
@pytest.mark.parametrize('head', HEADS)
def test_autocast__losses_and_gradients_near_those_of_float32(head, dtype, device):
    """Rounding changes a number by at most eps / 2. An activation carries several such errors, which are
    independent, and a loss averages over pixels or slots, so losses may differ by 4 eps. Mask2Former's masked
    attention takes or leaves a whole pixel where a logit is near 0; one such pixel of few outweighs rounding.
    The gradient as a whole must point the same way."""
    model = build_model(head).to(device)
    expected, found = training_step(model), training_step(model, autocast=dtype)

    tolerance = 0.05 if head == 'Mask2Former' else 4 * torch.finfo(dtype).eps
    assert all(loss.dtype == torch.float32 for loss in found.losses.values())
    assert_all_close(found.losses, expected.losses, tolerance, 0)
    gradient, expected_gradient = (
        torch.cat([part.flatten() for part in step.gradients.values()]) for step in (found, expected))
    assert gradient.isfinite().all() and not torch.equal(gradient, expected_gradient)
    assert torch.cosine_similarity(gradient, expected_gradient, dim=0) > 0.8


@by_dtype
@pytest.mark.parametrize('head', HEADS)
def test_train_step__moves_all_weights_in_mixed_precision(head, dtype, device):
    """A dynamic loss scale starts high: the first steps may overflow, which halves it and moves no weight."""
    model = build_model(head).to(device)
    optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.0))
    config = use_mixed_precision(Config(dict(optim_wrapper=optim_wrapper)), str(dtype).split('.')[-1])
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for _ in range(24):
        losses = model.train_step(training_batch(model), wrapper)
        assert all(math.isfinite(loss.item()) for loss in losses.values())
    assert wrapper.loss_scaler.is_enabled() == (dtype == torch.float16)
    assert wrapper.loss_scaler.get_scale() >= 1
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32 and parameter.isfinite().all(), name
        assert not torch.equal(parameter, before[name]), name
