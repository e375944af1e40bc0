"""The command lines of the tools that analyze models and logs."""
import json
import runpy
import sys
from importlib.util import find_spec

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from remax_mm.analysis.memory_estimate import MemoryEstimate
from tests.conftest import REPOSITORY
from tests.mini_mask_former import write_mini_configs


@pytest.fixture(autouse=True)
def _mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a tool of this folder; returns what it prints."""

    def call(script, *arguments):
        path = REPOSITORY / 'tools' / 'analysis_tools' / script
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
        runpy.run_path(str(path), run_name='__main__')
        return capsys.readouterr().out

    return call


def test_analyze_logs__train_time(run, tmp_path):
    if find_spec('seaborn') is None:
        with pytest.raises(SystemExit, match='seaborn'):
            run('analyze_logs.py', 'cal_train_time', 'log.json')
        return
    log = tmp_path / 'log.json'
    # mmdet needs the key `epoch`, which mmengine does not log for iteration-based training.
    lines = [dict(epoch=1, iter=i, step=i, time=0.5, loss=1. / i) for i in (1, 2, 3)]
    log.write_text('\n'.join(map(json.dumps, lines)) + '\n')
    assert '0.5000' in run('analyze_logs.py', 'cal_train_time', log)


def test_model_complexity__numbers_of_table_12(run):
    config, = (REPOSITORY / 'configs' / 'remax').glob('remax-t_*.py')
    lines = [line.split() for line in run('model_complexity.py', config, '--shape', 640, 640).splitlines()]
    total = next(line for line in lines if line[:3] == ['whole,', 'at', 'inference'])
    # Table 12 of the ReMaX paper: parameters and GMACs of ReMaX-T, counted there and on the reference code.
    assert int(total[3].replace(',', '')) == 18_628_000
    assert float(total[4]) == pytest.approx(18.67, rel=1e-3)


def test_estimate_memory__prints_a_row_per_batch_size(run, monkeypatch):
    calls = []

    def estimate(config, batch_size, *settings):
        calls.append((config.optim_wrapper.type, *settings))
        return MemoryEstimate(2**30, 2**31, batch_size * 2**30)

    monkeypatch.setattr('remax_mm.analysis.memory_estimate.estimate_memory', estimate)
    config = REPOSITORY / 'configs' / 'mini' / 'remax_mnv3-s_1xb8-1k_mini-129.py'
    out = run('estimate_memory.py', config, '--batch-size', 1, 2, '--size', 33, 65, '--segments', 3, '--amp')
    rows = [[float(cell) for cell in line.split()] for line in out.splitlines()[-2:]]
    assert rows == [[1, 1, 2, 1, 4], [2, 1, 2, 2, 5]]
    assert calls == [('AmpOptimWrapper', [33, 65], 3)] * 2


def test_loss_balance__compares_runs(run, tmp_path):
    _, config = write_mini_configs(tmp_path)
    checkpoint, out = tmp_path / 'iter_7.pth', tmp_path / 'out'
    torch.save(dict(state_dict=MODELS.build(Config.fromfile(config).model).state_dict()), checkpoint)
    printed = run('loss_balance.py', config, config, '--checkpoints', 'none', checkpoint, '--num-batches', 1,
                  '--out-dir', out)
    assert '| relaxed, untrained | all |' in printed and '| relaxed iter_7 | d0.unrelaxed |' in printed
    numbers = json.loads((out / 'loss_balance.json').read_text())
    assert list(numbers['runs']) == ['relaxed, untrained', 'relaxed iter_7']
    final = numbers['runs']['relaxed iter_7']['final']
    assert sum(final['histogram']) == len(final['false_positive']) == final['summary']['images'] == 2
    assert len(final['histogram']) == len(numbers['ratio_edges']) - 1
    assert (out / 'loss_balance.png').read_bytes()[:4] == b'\x89PNG'


def test_loss_balance__bad_input(run, tmp_path):
    config, _ = write_mini_configs(tmp_path)
    other = tmp_path / 'other.pth'
    torch.save(dict(state_dict=torch.nn.Linear(1, 1).state_dict()), other)
    with pytest.raises(ValueError, match='each of the 1 configs, but got 2'):
        run('loss_balance.py', config, '--checkpoints', 'none', other)
    with pytest.raises(ValueError, match='different names'):
        run('loss_balance.py', config, config)
    with pytest.raises(FileNotFoundError, match='missing.pth'):
        run('loss_balance.py', config, '--checkpoints', tmp_path / 'missing.pth')
    with pytest.raises(RuntimeError, match='do not match exactly'):
        run('loss_balance.py', config, '--checkpoints', other)


def test_benchmark_relaxations__ratios_and_the_check(run, tmp_path):
    printed = run('benchmark_relaxations.py', *write_mini_configs(tmp_path), '--rounds', 2, '--num-batches',
                  1, '--out', tmp_path / 'out.json')
    assert ('Inference: 0 parameters and 0 module calls differ, largest difference of the outputs 0'
            in printed)
    numbers = json.loads((tmp_path / 'out.json').read_text())
    costs = numbers['costs']
    assert len(costs['plain']['seconds']) == len(costs['relaxed']['seconds']) == 2
    memory = costs['relaxed']['peak_memory'] / costs['plain']['peak_memory']
    assert numbers['overhead']['memory'] == pytest.approx(memory) and memory > 1
    assert numbers['inference'] == dict(parameters=[], calls=[], outputs=0)
