import copy

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.logging import MessageHub

from remax_mm.models.detectors import finite_losses
from remax_mm.models.detectors.finite_losses import FiniteLossCheck

SAMPLES = [DetDataSample(metainfo=dict(img_path='a/1.jpg')), DetDataSample(metainfo=dict(img_id=7))]


def test_finite_loss_check__finite_terms():
    losses = dict(loss_a=torch.tensor(1., requires_grad=True), loss_b=[torch.tensor(2.), torch.tensor(-3.)])
    FiniteLossCheck().add(losses, SAMPLES)
    assert losses['loss_a'].requires_grad and len(losses['loss_b']) == 2
    FiniteLossCheck().add({}, SAMPLES)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), float('-inf')])
def test_finite_loss_check__error_names_terms_iteration_and_images(value):
    MessageHub.get_instance('finite_losses').update_info('iter', 41)
    losses = dict(loss_finite=torch.tensor(1.), loss_mask=torch.tensor(value), d0_loss=[torch.tensor(2.)])
    with pytest.raises(FloatingPointError) as error:
        FiniteLossCheck().add(losses, SAMPLES)
    message = str(error.value)
    assert f'loss_mask = {value}' in message and 'iteration 41' in message
    assert 'a/1.jpg' in message and '7' in message
    assert 'loss_finite' not in message and 'd0_loss' not in message


def test_finite_loss_check__one_element_of_a_list_and_of_a_tensor():
    nan = torch.tensor([1., float('nan')])
    for losses in (dict(loss=[torch.tensor(1.), nan[1]]), dict(loss=nan), dict(loss=nan.half())):
        with pytest.raises(FloatingPointError, match='loss = nan'):
            FiniteLossCheck().add(losses, SAMPLES)


class _Event:
    """Of a copy from a GPU."""

    def __init__(self) -> None:
        self.waited = 0

    def synchronize(self) -> None:
        self.waited += 1


@pytest.fixture
def event(monkeypatch) -> _Event:
    """The event of all copies, as if the losses were on a GPU."""
    event = _Event()
    monkeypatch.setattr(finite_losses, 'copy_to_host', lambda sums: (sums, event))
    return event


def test_finite_loss_check__of_a_gpu(event):
    MessageHub.get_instance('finite_losses').update_info('iter', 41)
    check = FiniteLossCheck()
    check.add(dict(loss=torch.tensor(float('nan'))), SAMPLES)
    assert event.waited == 0
    MessageHub.get_instance('finite_losses').update_info('iter', 42)
    with pytest.raises(
            FloatingPointError, match=r'loss = nan in iteration 41 .*a/1.jpg.*already been updated'):
        check.finish()
    assert event.waited == 1
    check.finish()  # an error is raised once


def test_finite_loss_check__copies_check_nothing(event):
    check = FiniteLossCheck()
    check.add(dict(loss=torch.tensor(float('inf'))), SAMPLES)
    copy.deepcopy(check).finish()
    with pytest.raises(FloatingPointError, match='loss = inf'):
        check.finish()
