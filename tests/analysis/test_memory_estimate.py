"""The estimate runs on tensors without data; here it is compared with the tensors of real training steps."""
from contextlib import nullcontext

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

from remax_mm.analysis.memory_estimate import (MemoryEstimate, estimate_config, estimate_memory,
                                               format_estimates)
from remax_mm.analysis.step_cost import draw_batch
from remax_mm.analysis.training_overhead import TensorMemory
from remax_mm.apis import load_config
from remax_mm.apis.run_config import use_mixed_precision
from tests.conftest import REPOSITORY

MINI = REPOSITORY / 'configs' / 'mini'
REMAX = MINI / 'remax_mnv3-s_1xb8-1k_mini-129.py'
MAX_DEEPLAB = MINI / 'max-deeplab-s_1xb8-1k_mini-129.py'


def _measure_total(config, batch_size, size, num_segments):
    """Bytes of weights and the peak of two updates, on tensors with data."""
    mixed_precision = config.optim_wrapper.type == 'AmpOptimWrapper'
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model).train()
    accumulated = config.optim_wrapper.get('accumulative_counts', 1)
    options = dict(optimizer=config.optim_wrapper.optimizer, accumulative_counts=accumulated)
    wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', **options))
    classes = model.num_things_classes, model.num_stuff_classes
    data = model.data_preprocessor(draw_batch(batch_size, size, num_segments, classes, seed=0), training=True)
    with TensorMemory() as memory:
        for _ in range(2 * accumulated):
            autocast = torch.autocast('cpu', torch.bfloat16) if mixed_precision else nullcontext()
            with autocast:
                loss = sum(model.loss(data['inputs'].clone(), data['data_samples']).values())
            wrapper.update_params(loss)
            del loss
    return memory.peak + sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


@pytest.mark.parametrize('path, options, amp', [
    pytest.param(REMAX, {'model.recompute_activations': True}, False, id='remax'),
    pytest.param(REMAX, {}, True, id='remax-amp', marks=pytest.mark.slow),
    pytest.param(REMAX, {'optim_wrapper.accumulative_counts': 2}, False, marks=pytest.mark.slow),
    pytest.param(MAX_DEEPLAB, {'model.backbone.with_cp': True}, False, marks=pytest.mark.slow),
])  # yapf: disable
def test_estimate__like_real_steps(path, options, amp):
    config = load_config(path, options)
    config = use_mixed_precision(config) if amp else config
    expected = _measure_total(config, 2, (65, 129), 6)
    estimate = estimate_memory(config, 2, (65, 129), 6)
    assert estimate.total == pytest.approx(expected, rel=0.01)

    parameters = sum(p.numel() for p in MODELS.build(config.model).parameters())
    assert estimate.optimizer == pytest.approx(8 * parameters, rel=1e-3)  # two float32 averages of AdamW


def test_estimate_config__defaults(monkeypatch):
    calls = []
    monkeypatch.setattr('remax_mm.analysis.memory_estimate.estimate_memory',
                        lambda config, *settings: calls.append(settings) or MemoryEstimate(1, 2, 3))
    assert estimate_config(load_config(REMAX)) == {8: MemoryEstimate(1, 2, 3)}
    estimate_config(load_config(REMAX), [1, 2], (33, 65), 5)
    assert calls == [(8, (129, 129), 20), (1, (33, 65), 5), (2, (33, 65), 5)]


def test_format_estimates__gib():
    estimates = {8: MemoryEstimate(2**30, 2**31, 3 * 2**30)}
    assert format_estimates(estimates).splitlines()[-1].split() == ['8', '1.00', '2.00', '3.00', '6.00']


def test_estimate__bad_input():
    with pytest.raises(ValueError, match='Expected `batch_size` to be positive, but got 0'):
        estimate_memory(load_config(REMAX), 0, (129, 129))
    config = load_config(MINI / 'mask2former_r18_1xb8-600_mini-129.py')
    with pytest.raises(ValueError, match='whose head has a `criterion`, .* got a Mask2FormerHead'):
        estimate_memory(config, 1, (129, 129))
