"""Two processes on CPUs: losses and gradients equal those of one; ``tools/train.py`` with torchrun."""
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, NamedTuple

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from remax_mm.datasets.mini_panoptic import write_mini_panoptic
from tests.config_files import read_config
from tests.conftest import REPOSITORY
from tests.cuda.models import HEADS, build_model, training_batch
from tests.mask_former_config import detector_config as mask_former_config
from tests.mask_former_config import drawn_batch
from tests.tiny_model import detector_config as kmax_config

NUM_PROCESSES = 2


class Step(NamedTuple):
    """Losses of one batch, averaged over the processes, and gradients."""
    losses: Dict[str, Tensor]
    gradients: Dict[str, Tensor]


def _model(family: str) -> nn.Module:
    """A relaxed model without randomness, in which images of a batch do not influence each other."""
    if family == 'kMaX':
        config = ConfigDict(kmax_config(relaxed=True, norm_cfg=dict(type='GN', num_groups=4)))
        for loss in ('loss_insdis', 'loss_sem'):
            config.panoptic_head.criterion[loss].num_samples = 0  # all pixels
    else:
        config = mask_former_config(family, relaxed=True)
    config.backbone.norm_cfg = dict(type='GN', num_groups=4)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def _same_points(*size: int, **_options: object) -> Tensor:
    """Replacement of ``torch.rand``: all masks are sampled at the same points (..., P, 2)."""
    size = size[0] if isinstance(size[0], tuple) else size
    points = torch.empty(size[-2:]).uniform_(generator=torch.Generator().manual_seed(size[-2]))
    return points.expand(size).clone()


def _step(family: str, rank: int = 0, world_size: int = 1) -> Step:
    """A step on the images ``rank``, ``rank + world_size``, ... of a batch of four."""
    model = _model(family)
    batch = {key: values[rank::world_size] for key, values in drawn_batch(4).items()}
    data = model.data_preprocessor(batch, training=True)
    wrapped = model if world_size == 1 else DistributedDataParallel(model)

    rand, torch.rand = torch.rand, _same_points
    try:
        losses = wrapped(**data, mode='loss')
    finally:
        torch.rand = rand
    sum(losses.values()).backward()

    losses = {name: loss.detach() / world_size for name, loss in losses.items()}
    if world_size > 1:
        for loss in losses.values():
            dist.all_reduce(loss)
    return Step(losses, {name: parameter.grad for name, parameter in model.named_parameters()})


def _work(rank: int, family: str, folder: Path) -> None:
    """What each process runs; the first one saves the result."""
    torch.set_num_threads(1)  # a forked process does not have the threads of its parent
    dist.init_process_group('gloo', f'file://{folder / "rendezvous"}', rank=rank, world_size=NUM_PROCESSES)
    step = _step(family, rank, NUM_PROCESSES)
    if rank == 0:
        torch.save(tuple(step), folder / 'step.pth')
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize('family', ['kMaX', 'Mask2Former', 'MaskFormer'])
def test_two_processes__same_losses_and_gradients_as_one(family, tmp_path):
    expected = _step(family)
    mp.start_processes(_work, (family, tmp_path), NUM_PROCESSES, start_method='fork')
    found = Step(*torch.load(tmp_path / 'step.pth'))

    assert set(found.losses) == set(expected.losses) and 'd0.loss_cls' in expected.losses
    for name, loss in expected.losses.items():
        torch.testing.assert_close(found.losses[name], loss, rtol=1e-5, atol=1e-6, msg=name)
    largest = max(gradient.abs().max() for gradient in expected.gradients.values()).item()
    for name, gradient in expected.gradients.items():
        torch.testing.assert_close(found.gradients[name], gradient, rtol=1e-3, atol=1e-6 * largest, msg=name)


def _train_on_void(rank: int, head: str, folder: Path) -> None:
    """Steps with and without a static graph; the second image of the second process has no segment."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder / "rendezvous"}', rank=rank, world_size=NUM_PROCESSES)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = build_model(head)
    for static_graph in (False, True):
        wrapped = DistributedDataParallel(model, static_graph=static_graph)
        for _ in range(2):  # what is missing in a step is an error in the next one
            batch = training_batch(model)
            batch['data_samples'][1].gt_panoptic_seg.segment_map *= 1 - rank
            data = model.data_preprocessor(batch, training=True)
            model.zero_grad()
            sum(wrapped(**data, mode='loss').values()).backward()
        missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert not missing, missing
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize('head', HEADS)
def test_two_processes__all_parameters_have_gradients(head, tmp_path):
    """Without `find_unused_parameters`, and with `static_graph`. Both processes check it and fail here."""
    mp.start_processes(_train_on_void, (head, tmp_path), NUM_PROCESSES, start_method='fork')


def _torchrun(*arguments: object) -> str:
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    environment = dict(os.environ, PYTHONPATH=str(REPOSITORY), OMP_NUM_THREADS='1')
    done = subprocess.run([*command, *map(str, arguments)],
                          env=environment,
                          cwd=REPOSITORY,
                          capture_output=True,
                          text=True,
                          timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='two processes need two GPUs if there is one')
@pytest.mark.parametrize('name', ['remax_mnv3-s_1xb8-1k_mini-129', 'remax-mask2former_r18_1xb8-600_mini-129'])
def test_scripts__two_processes_without_a_gpu(name, tmp_path):
    write_mini_panoptic(tmp_path / 'data', 8, 3, 129, 0)
    options = [
        f'{split}_dataloader.dataset.data_root={tmp_path / "data"}' for split in ('train', 'val', 'test')
    ]
    options += ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2']
    options += ['default_hooks.logger.interval=1']
    _torchrun('tools/train.py', f'configs/mini/{name}.py', '--launcher', 'pytorch', '--work-dir',
              tmp_path / 'run', '--cfg-options', *options)
    log, = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line['step'] for line in lines if 'loss' in line] == [1, 2]
    assert all(math.isfinite(line['loss']) for line in lines if 'loss' in line)
    assert 'coco_panoptic/PQ' in lines[-1]
    checkpoint = tmp_path / 'run' / 'iter_2.pth'
    assert torch.load(checkpoint, weights_only=True)['meta']['iter'] == 2

    out = tmp_path / 'test.json'
    _torchrun('tools/test.py', f'configs/mini/{name}.py', checkpoint, '--launcher', 'pytorch', '--work-dir',
              tmp_path / 'test', '--out', out, '--cfg-options', *options[:3])
    assert json.loads(out.read_text())['coco_panoptic/PQ'] == pytest.approx(lines[-1]['coco_panoptic/PQ'])


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='the program shards onto the CPU')
def test_fsdp__trains_and_saves_shards(tmp_path):
    write_mini_panoptic(tmp_path / 'data', 4, 1, 129, 0)
    output = _torchrun('tests/train_fsdp.py', tmp_path / 'data', tmp_path / 'run')
    held = [int(number) for number in re.findall(r'parameters of process \d: (\d+)', output)]
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(read_config('remax_mnv3-s_1xb8-1k_mini-129').model)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert len(held) == 2 and max(held) < 0.6 * total <= 1.2 * sum(held)

    log, = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    losses = [json.loads(line)['loss'] for line in log.read_text().splitlines()]
    assert len(losses) == 2 and all(math.isfinite(loss) for loss in losses)
    assert {path.name for path in (tmp_path / 'run' / 'iter_2.pth').iterdir()} == {'rank0.pth', 'rank1.pth'}
