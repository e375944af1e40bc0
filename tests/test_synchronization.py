"""What of a training step waits for a GPU, counted on a CPU: the matching alone."""
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

from tests.cuda.models import build_model, training_batch
from tests.host_reads import made_up_device

OURS = ('kMaX-DeepLab', 'ReMaX', 'MaX-DeepLab')


@pytest.mark.parametrize('read', [
    lambda x: x.sum().item(), lambda x: x.tolist(), lambda x: bool(x.any()), lambda x: x.nonzero(),
    lambda x: x[x > 0], lambda x: x.cpu(), lambda x: x[[1, 0]], lambda x: float(x.mean()),
    lambda x: (x * 2).unique(), lambda x: torch.bincount(x.long()), lambda x: x.new_tensor([1.]),
    lambda x: torch.tensor([1.], device=x.device), lambda x: x.detach().numpy()
])  # yapf: disable
def test_made_up_device__finds(read):
    model = torch.nn.BatchNorm1d(3)
    with made_up_device(model) as device:
        read(model.weight)
        read_on_host = torch.ones(3).sum().item()
    assert len(device.waits) == 1 and 'test_synchronization.py' in device.waits[0] and read_on_host == 3


@pytest.mark.parametrize('head', OURS)
def test_train_step__waits_for_the_matching_alone(head):
    """The whole step: data preprocessor, losses, backward pass, optimizer."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = build_model(head)
        wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)))
    with made_up_device(model) as device:
        model.train_step(training_batch(model), wrapper)
        model.finite_losses.finish()
    assert len(device.waits) == 2, device.waits
    to_host, to_device = device.waits
    assert to_host.startswith('cpu ') and to_device.startswith('as_tensor ')
    assert all('pq_similarity_assigner.py' in wait for wait in device.waits)
