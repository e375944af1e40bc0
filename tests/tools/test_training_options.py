"""Options of docs/training_options.md, each in a run of `tools/train.py`."""
import json
import math
import runpy
import sys

import pytest
import torch
from mmengine.optim.optimizer import amp_optimizer_wrapper

from remax_mm.datasets import write_mini_panoptic
from tests.config_files import read_config
from tests.conftest import REPOSITORY

NAME = 'remax_mnv3-s_1xb8-1k_mini-129'

CONFIG = """
_base_ = '{repository}/configs/mini/{name}.py'
loader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root="{data}"))
train_dataloader = loader
val_dataloader = loader
train_cfg = dict(max_iters=4, val_interval=4)
param_scheduler = None
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=4))
auto_scale_lr = dict(enable=False, base_batch_size=8)
visualizer = dict(name='{data}')
{more}
"""
EMA = "custom_hooks = [dict(type='EMAHook', momentum=0.5)]"


@pytest.fixture
def train(tmp_path):
    """Train four iterations; returns the lines of the log and the checkpoint."""
    write_mini_panoptic(tmp_path / 'data', 4, 1, 65, 0)

    def run(*arguments, more=''):
        path = tmp_path / 'config.py'
        path.write_text(CONFIG.format(name=NAME, repository=REPOSITORY, data=tmp_path / 'data', more=more))
        argv, sys.argv = sys.argv, ['train.py', str(path), '--work-dir', str(tmp_path / 'run'), *arguments]
        try:
            runpy.run_path(str(REPOSITORY / 'tools' / 'train.py'), run_name='__main__')
        finally:
            sys.argv = argv
        log, = (tmp_path / 'run').glob('*/vis_data/scalars.json')
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return lines, torch.load(tmp_path / 'run' / 'iter_4.pth', weights_only=True)

    return run


@pytest.mark.slow
def test_train__options_together(train, monkeypatch):
    """mmengine refuses mixed precision without an accelerator, but torch has bfloat16 on CPUs."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    lines, checkpoint = train(
        '--amp',
        '--amp-dtype',
        'bfloat16',
        '--auto-scale-lr',
        '--cfg-options',
        'optim_wrapper.accumulative_counts=2',
        'optim_wrapper.clip_grad.max_norm=0.1',
        more=EMA)

    losses = [line for line in lines if 'loss' in line]
    assert len(losses) == 4 and all(math.isfinite(line['loss']) for line in losses)
    # --auto-scale-lr: a quarter of the batch size of the recipe
    assert losses[0]['lr'] == pytest.approx(read_config(NAME).optim_wrapper.optimizer.lr * 2 / 8)
    # Accumulation: two updates in four iterations. Clipping: the norm of each is logged.
    steps = {int(state['step']) for state in checkpoint['optimizer']['state'].values()}
    assert steps == {2}
    assert [line.get('grad_norm') is not None for line in losses] == [False, True, True, True]
    # bfloat16 needs no loss scale
    assert checkpoint['optimizer']['loss_scaler'] == {}
    # EMA: the checkpoint has the averaged weights and, to resume from, those of the last iteration
    averaged, last = checkpoint['state_dict'], checkpoint['ema_state_dict']
    name = 'panoptic_head.transformer_decoder.cluster_centers'
    assert not torch.equal(averaged[name], last[f'module.{name}'])
    assert int(last['steps']) == 4


@pytest.mark.slow
def test_train__compile(train):
    lines, checkpoint = train('--cfg-options', 'compile.backend=eager')
    losses = [line['loss'] for line in lines if 'loss' in line]
    assert len(losses) == 4 and all(math.isfinite(loss) for loss in losses)
    assert 'coco_panoptic/PQ' in lines[-1] and checkpoint['meta']['iter'] == 4
