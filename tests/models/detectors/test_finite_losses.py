import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.logging import MessageHub

from remax_mm.models.detectors.finite_losses import check_finite_losses

SAMPLES = [DetDataSample(metainfo=dict(img_path='a/1.jpg')), DetDataSample(metainfo=dict(img_id=7))]


def test_check_finite_losses__finite_terms():
    losses = dict(loss_a=torch.tensor(1., requires_grad=True), loss_b=[torch.tensor(2.), torch.tensor(-3.)])
    check_finite_losses(losses, SAMPLES)
    assert losses['loss_a'].requires_grad and len(losses['loss_b']) == 2
    check_finite_losses({}, SAMPLES)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), float('-inf')])
def test_check_finite_losses__error_names_terms_iteration_and_images(value):
    MessageHub.get_instance('finite_losses').update_info('iter', 41)
    losses = dict(loss_finite=torch.tensor(1.), loss_mask=torch.tensor(value), d0_loss=[torch.tensor(2.)])
    with pytest.raises(FloatingPointError) as error:
        check_finite_losses(losses, SAMPLES)
    message = str(error.value)
    assert f'loss_mask = {value}' in message and 'iteration 41' in message
    assert 'a/1.jpg' in message and '7' in message
    assert 'loss_finite' not in message and 'd0_loss' not in message


def test_check_finite_losses__one_element_of_a_list_and_of_a_tensor():
    nan = torch.tensor([1., float('nan')])
    for losses in (dict(loss=[torch.tensor(1.), nan[1]]), dict(loss=nan), dict(loss=nan.half())):
        with pytest.raises(FloatingPointError, match='loss = nan'):
            check_finite_losses(losses, SAMPLES)
