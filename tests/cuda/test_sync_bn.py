"""Synchronized batch norms in a process group of one."""
import copy

import pytest
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from tests.cuda.models import assert_all_close, build_model, training_step


@pytest.fixture
def process_group(device, tmp_path):
    dist.init_process_group('nccl', f'file://{tmp_path / "store"}', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize('num_images', [1, 2])
def test_sync_bn__is_batch_norm_in_a_single_process(num_images, device, process_group):
    """Converted as mmengine's runner does with ``sync_bn='torch'``. A single image takes another path in the
    image pooling of ASPP."""
    model = build_model('ReMaX').to(device)
    synchronized = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    replaced = [module for module in synchronized.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert len(replaced) == sum(isinstance(module, _BatchNorm) for module in model.modules()) > 0

    wrapper = DistributedDataParallel(synchronized, device_ids=[device.index])
    expected, found = training_step(model, num_images), training_step(synchronized, num_images, wrapper)
    assert_all_close(found.losses, expected.losses, 1e-5, 0)
    assert_all_close(found.gradients, expected.gradients, 1e-4, 1e-6)
    assert_all_close(found.statistics, expected.statistics, 1e-5, 1e-6)
