"""A long training neither needs more and more memory nor keeps files open."""
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import List, NamedTuple

import pytest

from remax_mm.datasets.mini_panoptic import write_mini_panoptic
from tests.conftest import REPOSITORY
from tests.reliability.training_runs import logged_iterations

ITERATIONS = int(os.environ.get('RELIABILITY_SOAK', 2000))


class Usage(NamedTuple):
    """Of a training with its workers.

    Attributes:
        iteration: last one that was logged.
        processes: number of processes.
        memory: in MB, memory that processes share counted once.
        files: number of open files.
    """
    iteration: int
    processes: int
    memory: float
    files: int


def _tree(pid: int) -> List[int]:
    children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    # Workers are started by other threads too.
    for task in Path(f'/proc/{pid}/task').iterdir():
        children += (task / 'children').read_text().split()
    return [pid] + [process for child in sorted(set(map(int, children))) for process in _tree(child)]


def _memory(pid: int) -> float:
    lines = Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith('Pss:')) / 1024


def _usage(pid: int, iteration: int) -> Usage:
    processes = _tree(pid)
    files = sum(len(os.listdir(f'/proc/{process}/fd')) for process in processes)
    return Usage(iteration, len(processes), sum(map(_memory, processes)), files)


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/smaps_rollup').exists(), reason='reads the memory from /proc')
def test_soak__memory_and_files(tmp_path):
    """RELIABILITY_SOAK (2000) iterations of the mini config with 2 workers, 10 validations and checkpoints.

    The first quarter is warm-up. The later ones are compared by their medians, so that a file that is just
    being written does not count.
    """
    write_mini_panoptic(tmp_path / 'data', 32, 8, 129, 0)
    interval = max(ITERATIONS // 10, 1)
    options = [
        f'{split}_dataloader.dataset.data_root={tmp_path / "data"}' for split in ('train', 'val', 'test')
    ]
    options += [
        f'train_cfg.max_iters={ITERATIONS}', f'train_cfg.val_interval={interval}',
        f'default_hooks.checkpoint.interval={interval}', 'default_hooks.logger.interval=5',
        'train_dataloader.num_workers=2', 'train_dataloader.batch_size=2'
    ]
    command = [sys.executable, 'tools/train.py', 'configs/mini/remax_mnv3-s_1xb8-1k_mini-129.py']
    command += ['--work-dir', str(tmp_path / 'run'), '--cfg-options', *options]
    environment = dict(os.environ, PYTHONPATH=str(REPOSITORY), OMP_NUM_THREADS='1')
    samples: List[Usage] = []
    with (tmp_path / 'output.txt').open('w') as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=output, stderr=output)
        try:
            while process.poll() is None:
                time.sleep(0.5)
                iterations = logged_iterations(tmp_path / 'run')
                if iterations and (not samples or iterations[-1] > samples[-1].iteration):
                    try:
                        samples.append(_usage(process.pid, iterations[-1]))
                    except (FileNotFoundError, ProcessLookupError):
                        pass  # a process ended in the meantime
        finally:
            process.kill()
    assert process.returncode == 0, (tmp_path / 'output.txt').read_text()[-3000:]

    quarters = [[sample for sample in samples if sample.iteration * 4 // (ITERATIONS + 1) == quarter]
                for quarter in range(4)]
    memory = [median(sample.memory for sample in quarter) for quarter in quarters]
    files = [median(sample.files for sample in quarter) for quarter in quarters]
    print(
        f'\n{ITERATIONS} iterations, {len(samples)} samples, {samples[-1].processes} processes; by quarter: '
        f'memory {", ".join(f"{value:.1f}" for value in memory)} MB, open files {files}')
    assert memory[3] <= 1.02 * memory[1]
    assert files[3] <= files[1]
