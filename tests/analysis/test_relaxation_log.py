"""What the hook logs: the gate by loops, the loss balance as measured without training."""
import math
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import HOOKS, MODELS
from mmdet.structures import DetDataSample
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData

from remax_mm.analysis.model_loss_balance import collect_loss_balance
from remax_mm.analysis.relaxation_log import RelaxationLogHook, measure_gate
from remax_mm.analysis.study_plan import RELAXATION_LOG
from tests.tiny_model import NUM_CLASSES, NUM_SLOTS, detector_config

INTERVAL = 2


def test_measure_gate__naive_loops():
    torch.manual_seed(0)
    gate = torch.rand(2, 4, 5, 6)
    owner = torch.randint(0, 5, (2, 5, 6))  # 4 is void
    owner[0][owner[0] == 2] = 4  # a slot without a segment
    inside, outside = [], []
    for image in range(2):
        for slot in range(4):
            pixels = [(y, x) for y in range(5) for x in range(6)]
            own = [gate[image, slot, y, x].item() for y, x in pixels if owner[image, y, x] == slot]
            other = [gate[image, slot, y, x].item() for y, x in pixels if owner[image, y, x] not in (slot, 4)]
            if own:
                inside.append(sum(own) / len(own))
                outside.append(sum(other) / len(other))
    assert len(inside) == 7
    assert measure_gate(gate, owner) == pytest.approx((sum(inside) / 7, sum(outside) / 7), rel=1e-5)


def test_measure_gate__segment_of_the_whole_image_and_only_void():
    gate = torch.tensor([0.25, 0.5])[None, :, None, None].expand(1, 2, 3, 3)
    whole = measure_gate(gate, torch.zeros(1, 3, 3, dtype=torch.int64))
    assert whole.inside == 0.25 and math.isnan(whole.outside)
    assert all(map(math.isnan, measure_gate(gate, torch.full((1, 3, 3), 2))))


@pytest.fixture
def batch() -> dict:
    """One image with a thing on stuff."""
    segment_map = torch.ones(1, 65, 65, dtype=torch.uint8)
    segment_map[:, :30] = 2
    sample = DetDataSample(metainfo=dict(img_shape=(65, 65), ori_shape=(65, 65), img_id=0))
    sample.gt_panoptic_seg = PixelData(segment_map=segment_map)
    sample.gt_segments = InstanceData(
        labels=torch.tensor([1, NUM_CLASSES - 1]), is_thing=torch.tensor([1, 0]) > 0)
    return dict(inputs=[torch.randint(0, 255, (3, 65, 65), dtype=torch.uint8)], data_samples=[sample])


def _log_step(hook, model, batch, iteration):
    """Logged scalars of a training step, and the gradient of the slots."""
    hub = MessageHub(f'relaxation log {iteration}')
    runner = SimpleNamespace(iter=iteration, model=model, message_hub=hub)
    if hook is not None:
        hook.before_train(runner)
        hook.before_train_iter(runner)
    torch.manual_seed(1)
    model.zero_grad()
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    sum(loss for name, loss in losses.items() if 'loss' in name).backward()
    if hook is not None:
        hook.after_train_iter(runner)
    scalars = {key[len('train/'):]: value.current() for key, value in hub.log_scalars.items()}
    return scalars, model.panoptic_head.transformer_decoder.cluster_centers.grad.clone()


@pytest.mark.parametrize('relaxed', [False, True])
def test_relaxation_log_hook__agrees_with_the_loss_balance(relaxed, batch):
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.manual_seed(0)
        model = MODELS.build(detector_config(relaxed=relaxed)).train()
        torch.manual_seed(1)
        expected = collect_loss_balance(model, [batch])
        hook = HOOKS.build(dict(type=RELAXATION_LOG.split('=')[1], interval=INTERVAL))
        scalars, gradient = _log_step(hook, model, batch, INTERVAL - 1)
        nothing, other_gradient = _log_step(hook, model, batch, INTERVAL)
        _, plain_gradient = _log_step(None, model, batch, INTERVAL - 1)

    # One value for each output, once, also where the backward pass computes the losses again.
    ratios = {f'{name}.fp_fn': parts.ratio.item() for name, parts in expected.items() if '.' not in name}
    del ratios['all.fp_fn']
    for name in ('d0', 'd1') if relaxed else ():
        ratios[f'{name}.fp_fn_unrelaxed'] = expected[f'{name}.unrelaxed'].ratio.item()
    gates = {key for key in scalars if 'gate' in key}
    assert {key: scalars[key] for key in scalars if key not in gates} == pytest.approx(ratios, rel=1e-4)
    relaxed_outputs = (0, 1) if relaxed else ()
    assert gates == {f'd{i}.gate_{side}' for i in relaxed_outputs for side in ('inside', 'outside')}
    assert all(0 < scalars[key] < NUM_CLASSES for key in gates)

    # Nothing in between, and the training does not change.
    assert nothing == {}
    assert torch.equal(gradient, plain_gradient) and torch.equal(gradient, other_gradient)


def test_relaxation_log_hook__initial_gate_is_a_half(batch):
    """Calibrated semantic logits of -log(K - 1) and class logits of 0: K / 2 / K."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(detector_config(relaxed=True)).train()
        for name, parameter in model.named_parameters():
            if 'classifier' in name and 'weight' in name or 'class_head' in name:
                torch.nn.init.zeros_(parameter)
        scalars, _ = _log_step(RelaxationLogHook(1), model, batch, 0)
    assert [scalars[f'd{i}.gate_{side}'] for i in (0, 1) for side in ('inside', 'outside')] == pytest.approx(
        [0.5] * 4, rel=1e-4)
    # All mask logits start near 0.
    assert scalars['final.fp_fn'] == pytest.approx(NUM_SLOTS - 1, rel=0.2)


@pytest.mark.parametrize('interval', [0, -1])
def test_relaxation_log_hook__wrong_interval(interval):
    with pytest.raises(ValueError, match=f'at least 1, but got {interval}'):
        RelaxationLogHook(interval)
