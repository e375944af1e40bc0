"""A process that does not answer ends a distributed training and is named."""
import os
import signal
import time

import pytest

from remax_mm.engine.hooks import FrozenRankHook
from tests.reliability.training_runs import TrainingRun, training_config, write_data


@pytest.mark.slow
@pytest.mark.parametrize('frozen, reporter', [(1, 0), (0, 1)])
def test_training__frozen_process_is_named(frozen, reporter, tmp_path):
    hook = dict(interval=0.5, timeout=3)
    config = training_config(
        write_data(tmp_path / 'data'), tmp_path, iterations=1000, default_hooks__frozen_rank=hook)
    run = TrainingRun(config, world_size=2)
    run.wait_for_iteration(2)
    process = run.processes[frozen]
    os.kill(process.pid, signal.SIGSTOP)
    start = time.monotonic()
    run.processes[reporter].join(60)
    code, seconds = run.processes[reporter].exitcode, time.monotonic() - start
    run.kill()
    assert code == 1 and 3 < seconds < 30, f'{code} after {seconds} s\n{run.output()}'
    assert f'rank {frozen} (host ' in run.logs[reporter].read_text()
    assert f'process id {process.pid}) did not answer' in run.logs[reporter].read_text()


@pytest.mark.slow
def test_training__ends_normally_while_it_is_watched(tmp_path):
    hook = dict(interval=0.01, timeout=60)
    config = training_config(write_data(tmp_path / 'data'), tmp_path, default_hooks__frozen_rank=hook)
    TrainingRun(config, world_size=2).finish()


def test_message__names_all_missing_ranks():
    hook = FrozenRankHook(timeout=7)
    hook._names = ['rank 0 (a)', 'rank 1 (b)', 'rank 2 (c)', 'rank 3 (d)']
    message = hook._message(0, '[Rank 0]: Ranks 1, 3 failed to pass monitoredBarrier in 7000 ms')
    assert 'rank 1 (b), rank 3 (d) did not answer rank 0 (a) for 7 s' in message and '(c)' not in message
    assert 'rank 0 (a) did not answer rank 2 (c) for 7 s' in hook._message(2, 'connection closed')
