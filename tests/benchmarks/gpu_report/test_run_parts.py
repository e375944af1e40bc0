import sys
import time

import pytest

from remax_mm.benchmarks.gpu_report import run_parts as module
from remax_mm.benchmarks.gpu_report.part import Part, share_time
from remax_mm.benchmarks.gpu_report.records import (DONE, FAILED, RUNNING, SKIPPED, STOPPED, WAITING, Case,
                                                    Records)
from remax_mm.benchmarks.gpu_report.run_parts import Plan, run_part, run_parts, run_worker
from remax_mm.benchmarks.gpu_report.worker import Request

CASES = [Case('first'), Case('second'), Case('third')]


def _part(name='training', share=1., cases=CASES, needs_device=True):
    return Part(name, name, share, lambda scale: list(cases), None, needs_device)


def _plan(folder, *parts, no_device=''):
    return Plan(parts, 'tiny', 'cpu', folder, no_device)


def _states(folder, part):
    return {record.name: record.status for record in Records(folder, part.name).read_all(CASES)}


def test_share_time__by_hand():
    assert share_time(100., [1., 3.]) == 25. and share_time(10., [2.]) == 10.
    assert share_time(-5., [1., 1.]) == 0.


@pytest.fixture
def clock(monkeypatch):
    """A list with the time, which a test sets."""
    now = [1000.]
    monkeypatch.setattr(module.time, 'monotonic', lambda: now[0])
    return now


def test_run_parts__what_is_left_goes_to_the_others(tmp_path, clock, monkeypatch):
    parts = [_part('a', 1., CASES[:1]), _part('b', 3., CASES[:2]), _part('c', 4., CASES[:1])]
    given = []

    def run(plan, part, cases, seconds):
        given.append((part.name, [case.name for case in cases], round(seconds, 3)))
        records = Records(tmp_path, part.name)
        if part.name == 'b' and len(given) == 2:  # one case is done, the other one needs more time
            records.write(CASES[0], status=DONE)
            records.write(CASES[1], status=STOPPED)
            clock[0] += seconds
        else:
            for case in cases:
                records.write(case, status=DONE)
            clock[0] += 4.

    monkeypatch.setattr(module, 'run_part', run)
    run_parts(_plan(tmp_path, *parts), end=1080.)
    # 80 * 1 / 8; 76 * 3 / 7; the rest, of which 4 are used; and again what is left of it
    rest = 76 * 4 / 7
    assert given == [('a', ['first'], 10.), ('b', ['first', 'second'], round(76 * 3 / 7, 3)),
                     ('c', ['first'], round(rest, 3)), ('b', ['second'], round(rest - 4, 3))]
    run_parts(_plan(tmp_path, *parts), end=2000.)
    assert len(given) == 4  # all is done


def test_run_parts__later_run_tries_everything_again_that_is_not_done(tmp_path, clock, monkeypatch):
    part, records, given = _part(), Records(tmp_path, 'training'), []
    for case, status in zip(CASES, (STOPPED, DONE, RUNNING)):
        records.write(case, status=status)
    monkeypatch.setattr(module, 'run_part', lambda plan, part, cases, seconds: given.append(cases))
    run_parts(_plan(tmp_path, part), end=1010.)
    # RUNNING: the run before was killed. What was stopped comes last, and once more if time is left.
    assert given == [[CASES[2], CASES[0]], [CASES[0]]]
    records.write(CASES[1], status=FAILED)
    records.write(CASES[0], status=SKIPPED)
    run_parts(_plan(tmp_path, part), end=1010.)
    assert given[2:] == [CASES]


def _runner(folder, *processes):
    """A stand-in for the process: for each call the states of cases, and the exit code."""
    calls, waiting = [], list(processes)

    def run(request, log):
        calls.append(list(request.cases))
        states, code, message = waiting.pop(0)
        log.write_text(f'starting\n{message}\n')
        for case, status in zip(CASES, states):
            if status is not None:
                Records(folder, request.part).write(case, status=status, started=time.time())
        return code

    return run, calls


def test_run_part__case_that_kills_its_process(tmp_path):
    run, calls = _runner(tmp_path, ((DONE, RUNNING, None), -9, 'Memory cgroup out of memory'),
                         ((None, None, DONE), 0, ''))
    part = _part()
    run_part(_plan(tmp_path, part), part, CASES, 60., run)
    assert calls == [['first', 'second', 'third'], ['third']]
    assert _states(tmp_path, part) == dict(first=DONE, second=FAILED, third=DONE)
    reason = Records(tmp_path, part.name).read(CASES[1]).reason
    assert reason == 'exit code -9: Memory cgroup out of memory'


def test_run_part__limit_of_time(tmp_path):
    Records(tmp_path, 'training').write(CASES[1], result=dict(points=[1]))
    run, calls = _runner(tmp_path, ((DONE, RUNNING, None), None, ''))
    part = _part()
    run_part(_plan(tmp_path, part), part, CASES, 60., run)
    assert len(calls) == 1 and _states(tmp_path, part) == dict(first=DONE, second=STOPPED, third=WAITING)
    second, third = Records(tmp_path, part.name).read_all(CASES[1:])
    assert second.reason == 'the time was over' and second.result == dict(points=[1])
    assert not third.reason


def test_run_part__no_time_keeps_what_is_known(tmp_path):
    known = Records(tmp_path, 'training').write(CASES[0], status=FAILED, reason='RuntimeError: a', started=1.)
    run, calls = _runner(tmp_path, ((None, DONE, RUNNING), None, ''))
    part = _part()
    run_part(_plan(tmp_path, part), part, CASES, 0., run)
    assert not calls
    run_part(_plan(tmp_path, part), part, CASES, 60., run)
    assert Records(tmp_path, part.name).read(CASES[0]) == known
    assert _states(tmp_path, part) == dict(first=FAILED, second=DONE, third=STOPPED)


def test_run_part__process_that_does_not_start(tmp_path):
    run, calls = _runner(tmp_path, ((None, None, None), 1, 'ImportError: libcudart'))
    part = _part()
    run_part(_plan(tmp_path, part), part, CASES, 60., run)
    assert len(calls) == 1 and set(_states(tmp_path, part).values()) == {FAILED}
    assert Records(tmp_path, part.name).read(CASES[0]).reason == 'ImportError: libcudart'


def test_run_part__case_of_an_earlier_run_that_was_killed(tmp_path):
    Records(tmp_path, 'training').write(CASES[2], status=RUNNING, started=1.)
    run, calls = _runner(tmp_path, ((RUNNING, None, None), -9, 'Killed'), ((None, DONE, None), None, ''))
    part = _part()
    run_part(_plan(tmp_path, part), part, CASES, 60., run)
    assert calls[1] == ['second', 'third']
    assert _states(tmp_path, part) == dict(first=FAILED, second=DONE, third=WAITING)


def test_run_part__no_gpu(tmp_path):
    run, calls = _runner(tmp_path, ((DONE, DONE, DONE), 0, ''))
    part, other = _part(), _part('machine', needs_device=False)
    plan = _plan(tmp_path, part, other, no_device='torch finds no GPU')
    run_part(plan, part, CASES, 60., run)
    assert not calls and set(_states(tmp_path, part).values()) == {SKIPPED}
    assert Records(tmp_path, part.name).read(CASES[0]).reason == 'torch finds no GPU'
    run_part(plan, other, CASES, 60., run)
    assert len(calls) == 1 and set(_states(tmp_path, other).values()) == {DONE}


def _request(folder, seconds):
    return Request('training', [], 'tiny', 'cpu', str(folder), time.monotonic() + seconds)


def _program(folder, monkeypatch, text):
    """Let a shell script run instead of Python."""
    path = folder / 'program.sh'
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(path))


def test_run_worker__exit_code_and_log(tmp_path, monkeypatch):
    _program(tmp_path, monkeypatch, 'echo $2 $CUDA_VISIBLE_DEVICES; exit 3')
    assert run_worker(_request(tmp_path, 30), tmp_path / 'log') == 3
    assert (tmp_path / 'log').read_text().strip() == module.WORKER


def test_run_worker__ends_the_children_too(tmp_path, monkeypatch):
    _program(tmp_path, monkeypatch, f'sleep 60 & echo $! > {tmp_path}/child; wait')
    start = time.monotonic()
    assert run_worker(_request(tmp_path, 0.5), tmp_path / 'log') is None
    assert time.monotonic() - start < 10
    child = int((tmp_path / 'child').read_text())
    for _ in range(50):
        try:
            state = open(f'/proc/{child}/stat').read().split()[2]
        except FileNotFoundError:
            return
        if state == 'Z':  # ended, but not yet waited for
            return
        time.sleep(0.1)
    raise AssertionError(f'the child {child} is still running')
