"""Costs of training steps, with a known clock and tensors of known size, and the check of inference."""
import copy
import itertools
import math

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from remax_mm.analysis import training_overhead
from remax_mm.analysis.training_overhead import (StepCost, TensorMemory, build_training_step, compare_costs,
                                                 compare_inference, measure_overhead, measure_steps,
                                                 peak_memory, tensors_in, time_in_turns)
from tests.mask_former_config import FAMILIES
from tests.mask_former_config import detector_config as mask_former_config
from tests.mask_former_config import drawn_batch
from tests.mini_mask_former import write_mini_configs
from tests.tiny_model import detector_config as kmax_config


@pytest.fixture(autouse=True)
def _mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def test_tensor_memory__by_hand():
    weight = torch.ones(50, requires_grad=True)  # created before, so not counted
    with TensorMemory() as memory:
        first = torch.zeros(100)  # 400 bytes
        view, second = first.view(10, 10), first + 1
        assert (memory.live, memory.peak) == (800, 800)
        second.mul_(2)
        del first
        assert memory.live == 800  # the view keeps it alive
        del view, second
        assert (memory.live, memory.peak) == (0, 800)
        (weight * 3).sum().backward()
        assert memory.live == 200  # its gradient


@pytest.mark.skipif(torch.cuda.is_available(), reason='CUDA has its own measure')
def test_peak_memory__of_the_tensors_of_a_step():

    def step():
        total = torch.zeros(1000)
        for _ in range(5):
            total = total + torch.ones(1000)  # three tensors at most

    assert peak_memory(step) == 3 * 4000


def test_time_in_turns__known_clock(monkeypatch):
    clock = itertools.count()
    calls = []
    monkeypatch.setattr(training_overhead.time, 'perf_counter', lambda: float(next(clock)))
    steps = dict(
        one=lambda: calls.append('one'),
        three=lambda: [calls.append('three'), next(clock), next(clock)])
    assert time_in_turns(steps, rounds=3, warmup=1) == dict(one=[1.] * 3, three=[3.] * 3)
    assert calls == ['one', 'three'] * 4
    assert set(measure_steps(steps, 2)) == {'one', 'three'}


def test_compare_costs__median_of_the_rounds():
    # Round by round the ratios are 2, 3 and 0.5; the ratio of the medians would be 1.
    plain, changed = StepCost([1., 2., 8.], 100), StepCost([2., 6., 4.], 125)
    assert compare_costs(plain, changed) == (2., 1.25)


def test_tensors_in__nested():
    found = list(tensors_in(dict(a=[torch.ones(1), None, (torch.ones(2), 'x')], b=torch.ones(3))))
    assert [len(tensor) for tensor in found] == [1, 2, 3]


def _batch() -> dict:
    batch = drawn_batch()
    for sample in batch['data_samples']:
        del sample.gt_panoptic_seg, sample.gt_segments
    return batch


@pytest.mark.parametrize('family', ['kMaX', *FAMILIES])
def test_compare_inference__relaxations_cost_nothing(family):
    if family == 'kMaX':
        plain, relaxed = (MODELS.build(kmax_config(relaxed=relaxed)) for relaxed in (False, True))
    else:
        plain, relaxed = (MODELS.build(mask_former_config(family, relaxed)) for relaxed in (False, True))
    before = copy.deepcopy(relaxed.state_dict())
    assert compare_inference(plain, relaxed, _batch()) == ([], [], 0.)
    assert relaxed.training and set(relaxed.state_dict()) == set(before)


def test_compare_inference__finds_what_differs():
    plain = MODELS.build(mask_former_config('MaskFormer'))
    wider = MODELS.build(mask_former_config('MaskFormer', num_queries=7))
    assert compare_inference(plain, wider, _batch()).parameters == ['panoptic_head.query_embed.weight']

    longer = copy.deepcopy(plain)
    longer.panoptic_head.decoder_input_proj = torch.nn.Sequential(torch.nn.Identity())
    calls = compare_inference(plain, longer, _batch()).calls
    assert calls[0] == 'panoptic_head.decoder_input_proj | panoptic_head.decoder_input_proj.0'

    louder = copy.deepcopy(plain)
    louder.panoptic_head.mask_embed[1] = torch.nn.LeakyReLU(0.5)
    difference = compare_inference(plain, louder, _batch())
    assert not difference.parameters and not difference.calls and difference.outputs > 0

    silent = copy.deepcopy(plain)
    silent.panoptic_head.forward = lambda *args, **kwargs: ()
    assert math.isnan(compare_inference(plain, silent, _batch()).outputs)


@pytest.fixture
def configs(tmp_path):
    """A small plain and relaxed Mask2Former on the mini dataset."""
    return [Config.fromfile(path) for path in write_mini_configs(tmp_path)]


def test_build_training_step__same_seed_same_images(configs):
    step, again = (build_training_step(configs[0], num_batches=1) for _ in range(2))
    torch.manual_seed(0)
    losses = [float(step()['loss'].detach()) for _ in range(3)]
    torch.manual_seed(0)
    assert [float(again()['loss'].detach()) for _ in range(3)] == losses
    assert len(set(losses)) == 3
    with pytest.raises(ValueError, match='at least 1, but got 0'):
        build_training_step(configs[0], num_batches=0)


def test_measure_overhead__of_relaxations(configs):
    costs, overhead, difference = measure_overhead(*configs, rounds=2, num_batches=1)
    assert len(costs['plain'].seconds) == len(costs['relaxed'].seconds) == 2
    assert overhead == compare_costs(costs['plain'], costs['relaxed']) and overhead.memory > 1
    assert difference == ([], [], 0.)
