"""A resumed training ends with the same weights and optimizer state as one that was never interrupted."""
import os
import random
import time

import pytest

from tests.reliability.training_runs import (CHECKPOINT_INTERVAL, TrainingRun, assert_same_training,
                                             training_config, write_data)

# (workers, processes)
SETTINGS = [(0, 1), (1, 1), (4, 1), (1, 2)]
KILLS = int(os.environ.get('RELIABILITY_KILLS', 50))
ITERATIONS = 9  # of the killed trainings


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def whole(data_root, tmp_path_factory):
    """Folder of an uninterrupted training of one process with one worker, with a seed drawn by itself."""
    work_dir = tmp_path_factory.mktemp('whole')
    TrainingRun(_config(data_root, work_dir, 1)).finish()
    return work_dir


def _config(data_root, work_dir, workers, **overrides):
    return training_config(data_root, work_dir, train_dataloader__num_workers=workers, **overrides)


@pytest.mark.parametrize('workers', [0, 4])
def test_resume__same_bits_as_uninterrupted(workers, whole, data_root, tmp_path):
    """Also with another number of workers."""
    start = whole / f'iter_{CHECKPOINT_INTERVAL}.pth'
    TrainingRun(_config(data_root, tmp_path, workers), resume=start).finish()
    assert assert_same_training(tmp_path / 'iter_5.pth', whole / 'iter_5.pth') > 500


@pytest.mark.slow
def test_resume__two_processes(data_root, tmp_path):
    TrainingRun(_config(data_root, tmp_path / 'whole', 1), world_size=2).finish()
    start = tmp_path / 'whole' / f'iter_{CHECKPOINT_INTERVAL}.pth'
    TrainingRun(_config(data_root, tmp_path / 'resumed', 1), resume=start, world_size=2).finish()
    assert_same_training(tmp_path / 'resumed' / 'iter_5.pth', tmp_path / 'whole' / 'iter_5.pth')


@pytest.mark.slow
@pytest.mark.parametrize('workers, processes', SETTINGS)
def test_kill_at_random_moments__same_bits_as_uninterrupted(workers, processes, data_root, tmp_path):
    """kill -9 at RELIABILITY_KILLS (50) moments of a training, then --resume.

    One half of the moments is between start and end, the other half between the first checkpoint and the end.
    """
    chance = random.SystemRandom()
    whole = tmp_path / 'whole'
    options = dict(iterations=ITERATIONS, randomness=dict(seed=chance.randrange(2**31)))
    start = time.monotonic()
    run = TrainingRun(_config(data_root, whole, workers, **options), world_size=processes)
    run.wait_for_iteration(CHECKPOINT_INTERVAL)
    checkpoint_written = time.monotonic()
    run.finish()
    end = time.monotonic()

    resumed, tensors, last = 0, 0, f'iter_{ITERATIONS}.pth'
    for number in range(KILLS):
        work_dir = tmp_path / f'killed_{number}'
        config = _config(data_root, work_dir, workers, **options)
        run = TrainingRun(config, world_size=processes)
        if number % 2:
            run.wait_for_iteration(CHECKPOINT_INTERVAL)
        run.wait(timeout=chance.uniform(0, end - (checkpoint_written if number % 2 else start)))
        resumed += (work_dir / 'last_checkpoint').exists()
        TrainingRun(config, resume=True, world_size=processes).finish()
        tensors = assert_same_training(work_dir / last, whole / last)
    print(
        f'\n{workers} workers, {processes} processes: killed {KILLS} times, {resumed} times after the first '
        f'checkpoint; all {tensors} tensors are the same in {KILLS} of {KILLS}')
