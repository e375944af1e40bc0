"""Only one training uses a work directory at a time."""
import json
import multiprocessing
import os
import threading
import time

import pytest

from remax_mm.engine.hooks.work_dir_lock_hook import LOCK_FILE, WorkDirLock
from tests.reliability.training_runs import TrainingRun, training_config, write_data


@pytest.fixture
def path(tmp_path):
    return tmp_path / LOCK_FILE


def _lock(path, beat=0.05, stale_after=0.5):
    return WorkDirLock(path, beat, stale_after)


def _hold(path, ready):
    _lock(path).acquire()
    ready.set()
    time.sleep(60)


@pytest.fixture
def owner(path):
    """Another process that has the lock."""
    context = multiprocessing.get_context('fork')
    ready = context.Event()
    process = context.Process(target=_hold, args=(path, ready))
    process.start()
    assert ready.wait(20)
    yield process
    process.kill()
    process.join()


def _as_from_another_machine(path):
    path.write_text(json.dumps(dict(json.loads(path.read_text()), machine='other', host='node7')))


def test_lock__refused_while_the_owner_lives(path, owner):
    with pytest.raises(RuntimeError, match=f'process id {owner.pid} on .* remove {path}'):
        _lock(path).acquire()


def test_lock__free_after_release(path):
    first = _lock(path)
    assert first.acquire() is None
    first.release()
    assert not path.exists()
    assert _lock(path).acquire() is None


def test_lock__taken_over_from_a_killed_process(path, owner):
    pid = owner.pid
    owner.kill()
    # Also before its parent has noticed the end.
    time.sleep(0.2)
    assert f'process id {pid}' in _lock(path).acquire()
    assert json.loads(path.read_text())['pid'] == os.getpid()


def test_lock__same_process_again(path):
    _lock(path).acquire()
    assert f'process id {os.getpid()}' in _lock(path).acquire()


def test_lock__process_id_used_again(path, owner):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(content, ticks='1')))
    assert 'has ended' in _lock(path).acquire()


def test_lock__other_machine_alive_and_dead(path):
    first = _lock(path)
    first.acquire()
    _as_from_another_machine(path)
    stop = threading.Event()

    def beat():
        while not stop.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(RuntimeError, match='on node7'):
        _lock(path).acquire()
    stop.set()
    thread.join()

    start = time.monotonic()
    assert 'node7' in _lock(path).acquire()
    assert time.monotonic() - start >= 0.5


def test_lock__owner_notices_that_it_lost_it(path):
    first = _lock(path)
    first.acquire()
    _as_from_another_machine(path)
    end = time.monotonic() + 10
    while not first.lost and time.monotonic() < end:
        time.sleep(0.02)
    assert first.lost
    first.release()
    assert path.exists()


def test_training__second_one_refuses(tmp_path, path, owner):
    run = TrainingRun(training_config(write_data(tmp_path / 'data'), tmp_path))
    assert run.wait() == [1]
    assert f'but the training with process id {owner.pid}' in run.output()
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.slow
def test_training__two_at_the_same_time(tmp_path):
    """The second one refuses, in both of its processes, and the first one finishes."""
    config = training_config(write_data(tmp_path / 'data'), tmp_path / 'run', iterations=12)
    first = TrainingRun(config)
    first.wait_for_iteration(1)
    second = TrainingRun(config, world_size=2)
    assert second.wait() == [1, 1]
    first.finish()
    assert (tmp_path / 'run' / 'iter_12.pth').is_file() and not (tmp_path / 'run' / LOCK_FILE).exists()
