"""Losses for the log: the same as mmengine's, but read when they have arrived or are logged."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.logging import MessageHub

from remax_mm.engine import BackgroundRuntimeInfoHook
from remax_mm.engine.hooks import background_runtime_info_hook


class _Event:
    """Of a copy from a GPU, which arrives when somebody waits for it or when a test says so."""

    def __init__(self):
        self.arrived = self.waited = False

    def query(self):
        return self.arrived

    def synchronize(self):
        self.arrived = self.waited = True


@pytest.fixture
def events(monkeypatch):
    """One event per copy, as if the losses were on a GPU."""
    events = []

    def copy_to_host(values):
        events.append(_Event())
        return values.clone(), events[-1]

    monkeypatch.setattr(background_runtime_info_hook, 'copy_to_host', copy_to_host)
    monkeypatch.setattr(background_runtime_info_hook, '_is_on_gpu', lambda value: hasattr(value, 'cpu'))
    return events


def _runner(name, interval=3):
    hub = MessageHub(name)
    hub.update_info('loop_stage', 'train')
    return SimpleNamespace(
        message_hub=hub, hooks=[LoggerHook(interval=interval)], train_dataloader=range(10**6))


def _iterate(hook, runner, *indices):
    for index in indices:
        losses = dict(loss=torch.tensor(float(index)), loss_cls=torch.tensor(0.1 * index), lr_like=0.5)
        hook.after_train_iter(runner, index, None, losses)


def _history(runner):
    return {name: buffer.data[0].tolist() for name, buffer in runner.message_hub.log_scalars.items()}


def test_hook__waits_only_for_the_log(events):
    runner, hook = _runner('waits'), BackgroundRuntimeInfoHook()
    _iterate(hook, runner, 0, 1)
    assert not any(event.waited for event in events)
    assert _history(runner) == {'train/lr_like': [0.5, 0.5]}
    _iterate(hook, runner, 2)  # every third iteration is logged
    assert len(events) == 3 and all(event.waited for event in events)


def test_hook__publishes_what_has_arrived_in_order(events):
    runner, hook = _runner('order', interval=100), BackgroundRuntimeInfoHook()
    _iterate(hook, runner, 0, 1, 2)
    events[1].arrived = True
    _iterate(hook, runner, 3)
    assert 'train/loss' not in _history(runner)  # the first one is still missing
    events[0].arrived = True
    _iterate(hook, runner, 4)
    assert _history(runner)['train/loss'] == [0, 1]
    assert not any(event.waited for event in events)


@pytest.mark.parametrize('on_gpu', [True, False])
def test_hook__same_history_as_mmengines(on_gpu, events, monkeypatch):
    if not on_gpu:
        monkeypatch.setattr(background_runtime_info_hook, '_is_on_gpu', lambda value: False)
    expected, found = _runner('mmengines'), _runner('ours')
    _iterate(RuntimeInfoHook(), expected, *range(6))
    _iterate(BackgroundRuntimeInfoHook(), found, *range(6))
    assert len(events) == 6 * on_gpu and _history(found) == _history(expected)


@pytest.mark.parametrize('call', ['before_val', 'after_train', 'before_save_checkpoint'])
def test_hook__completes_the_history(call, events):
    runner, hook, checkpoint = _runner(call), BackgroundRuntimeInfoHook(), {}
    _iterate(hook, runner, 0, 1)
    getattr(hook, call)(runner, *([checkpoint] if 'checkpoint' in call else []))
    assert _history(runner)['train/loss'] == [0, 1]
    if checkpoint:
        assert checkpoint['message_hub']['log_scalars']['train/loss'].data[0].tolist() == [0, 1]


def test_hook__end_of_an_epoch(events):
    runner = _runner('epoch', interval=100)
    runner.train_dataloader = range(2)
    _iterate(BackgroundRuntimeInfoHook(), runner, 0, 1)
    assert _history(runner)['train/loss'] == [0, 1]
