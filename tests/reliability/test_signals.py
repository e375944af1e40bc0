"""Signals end a training after the iteration, with a checkpoint from which it continues exactly."""
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook

from remax_mm.engine.hooks.stop_on_signal_hook import EXIT_CODE, StopOnSignalHook
from tests.conftest import REPOSITORY
from tests.reliability.training_runs import (TrainingRun, assert_same_training, logged_iterations,
                                             training_config, write_data)


@HOOKS.register_module()
class SendSignal(Hook):
    """Sends signals to this process and its workers while iteration ``iteration`` or its validation runs."""

    def __init__(self, numbers, iteration=3, rank=0, in_validation=False):
        self.numbers, self.iteration, self.rank, self.in_validation = numbers, iteration, rank, in_validation

    def after_train_iter(self, runner, *args, **kwargs):
        if not self.in_validation and runner.iter + 1 == self.iteration:
            self._send(runner)

    def before_val_iter(self, runner, *args, **kwargs):
        if self.in_validation and runner.iter == self.iteration:
            self._send(runner)

    def _send(self, runner):
        if runner.rank == self.rank:
            for number in self.numbers:
                # From a process that is not the parent of the workers, as a launcher or Slurm does.
                ids = [process.pid for process in multiprocessing.active_children()] + [os.getpid()]
                subprocess.run(['kill', f'-{number.value}', *map(str, ids)], check=True)


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp('data'))


def _config(data_root, work_dir, *numbers, **options):
    hooks = [dict(type='SendSignal', numbers=list(numbers), **options)] if numbers else []
    return training_config(
        data_root, work_dir, custom_hooks=hooks, train_dataloader__num_workers=1, randomness=dict(seed=1))


def _checkpoints(work_dir):
    return sorted(path.name for path in work_dir.glob('iter_*.pth'))


def test_signal__checkpoint_of_this_iteration_and_exact_resume(data_root, tmp_path):
    """SIGUSR1 to the process and its worker, at an iteration without a scheduled checkpoint."""
    TrainingRun(_config(data_root, tmp_path / 'whole')).finish()
    work_dir = tmp_path / 'stopped'
    stopped = TrainingRun(_config(data_root, work_dir, signal.SIGUSR1))
    assert stopped.wait() == [EXIT_CODE], stopped.output()
    assert _checkpoints(work_dir) == ['iter_2.pth', 'iter_3.pth']
    assert Path((work_dir / 'last_checkpoint').read_text()).name == 'iter_3.pth'
    assert 'SIGUSR1: stopping after iteration 3' in stopped.output()

    TrainingRun(_config(data_root, work_dir), resume=True).finish()
    assert logged_iterations(work_dir) == [1, 2, 3, 4, 5]
    assert_same_training(work_dir / 'iter_5.pth', tmp_path / 'whole' / 'iter_5.pth')


def test_signal__all_processes_leave_together(data_root, tmp_path):
    """SIGTERM to the second process only, which does not write the checkpoint."""
    run = TrainingRun(_config(data_root, tmp_path, signal.SIGTERM, rank=1), world_size=2)
    assert run.wait() == [EXIT_CODE, EXIT_CODE], run.output()
    assert _checkpoints(tmp_path) == ['iter_2.pth', 'iter_3.pth']


@pytest.mark.slow
def test_signal__in_validation(data_root, tmp_path):
    """The validation of iteration 4 is left, and repeated by the resumed training."""
    run = TrainingRun(_config(data_root, tmp_path, signal.SIGTERM, iteration=4, in_validation=True))
    assert run.wait() == [EXIT_CODE], run.output()
    assert _checkpoints(tmp_path) == ['iter_2.pth', 'iter_4.pth']
    assert torch.load(tmp_path / 'iter_4.pth', weights_only=True)['meta']['iter'] == 4
    assert not list(tmp_path.glob('best_*'))
    TrainingRun(_config(data_root, tmp_path), resume=True).finish()
    assert [path.name for path in tmp_path.glob('best_*')] == ['best_coco_panoptic_PQ_iter_4.pth']


@pytest.mark.slow
@pytest.mark.parametrize('numbers, code, checkpoints', [
    ([signal.SIGINT], EXIT_CODE, ['iter_2.pth', 'iter_3.pth']),
    ([signal.SIGINT, signal.SIGINT], -signal.SIGINT, ['iter_2.pth']),
])
def test_signal__interrupted_once_and_twice(numbers, code, checkpoints, data_root, tmp_path):
    run = TrainingRun(_config(data_root, tmp_path, *numbers))
    assert run.wait() == [code], run.output()
    assert _checkpoints(tmp_path) == checkpoints


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='two processes ask for two GPUs where there are some')
def test_torchrun__sigterm(data_root, tmp_path):
    """torchrun passes the signal on and waits for the checkpoint."""
    config = _config(data_root, tmp_path / 'run')
    config.train_cfg.max_iters = 1000
    config.dump(tmp_path / 'config.py')
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    command += ['tools/train.py', str(tmp_path / 'config.py'), '--launcher', 'pytorch']
    log = tmp_path / 'output.txt'
    with log.open('w') as output:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=dict(os.environ, PYTHONPATH=str(REPOSITORY), OMP_NUM_THREADS='1'),
            stdout=output,
            stderr=output)
    try:
        end = time.monotonic() + 300
        while not logged_iterations(tmp_path / 'run') and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        process.terminate()
        code = process.wait(120)
    finally:
        process.kill()
    text = log.read_text()
    assert 'SIGTERM: stopping after iteration' in text and code != 0, text[-3000:]
    last = Path((tmp_path / 'run' / 'last_checkpoint').read_text())
    assert torch.load(last, weights_only=True)['meta']['iter'] == max(logged_iterations(tmp_path / 'run'))


def test_hook__needs_checkpoints_by_iteration(data_root, tmp_path):
    config = training_config(data_root, tmp_path)
    config.default_hooks.checkpoint.by_epoch = True
    run = TrainingRun(config)
    assert run.wait() == [1]
    assert 'Expected a CheckpointHook with by_epoch=False' in run.output()


def test_hook__restores_the_handlers():
    hook, former = StopOnSignalHook(), signal.getsignal(signal.SIGUSR1)
    hook._former = {signal.SIGUSR1: signal.signal(signal.SIGUSR1, hook._receive)}
    os.kill(os.getpid(), signal.SIGUSR1)
    assert hook.received == signal.SIGUSR1 and hook._stop_is_wanted()
    hook.after_run(None)
    assert signal.getsignal(signal.SIGUSR1) is former
