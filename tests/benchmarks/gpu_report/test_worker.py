import time

import pytest
import torch

from remax_mm.benchmarks.gpu_report import trainee as trainee_module
from remax_mm.benchmarks.gpu_report.cuda_tests import Outcomes
from remax_mm.benchmarks.gpu_report.part import CannotRun, Context, OutOfTime, Part
from remax_mm.benchmarks.gpu_report.records import DONE, FAILED, SKIPPED, STOPPED, WAITING, Case, Records
from remax_mm.benchmarks.gpu_report.scale import TINY
from remax_mm.benchmarks.gpu_report.step_shares import Stopwatch
from remax_mm.benchmarks.gpu_report.trainee import Trainee, measure_steps
from remax_mm.benchmarks.gpu_report.training_steps import double_batch_size
from remax_mm.benchmarks.gpu_report.worker import Request, measure_case, measure_cases

CASE = Case('a case')


def _measure(folder, measure, cases=(CASE, ), seconds=60.):
    part = Part('training', 'Training', 1., lambda scale: list(cases), measure)
    request = Request('training', [case.name for case in cases], 'tiny', 'cpu', str(folder),
                      time.monotonic() + seconds)
    measure_cases(part, cases, request)
    return Records(folder, 'training').read_all(cases)


def _ends_with(error):

    def measure(context):
        yield dict(points=[1])
        if error is not None:
            raise error

    return measure


@pytest.mark.parametrize('error, status, reason', [
    (None, DONE, ''),
    (torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB'), SKIPPED, 'out of memory'),
    (CannotRun('needs a GPU'), SKIPPED, 'needs a GPU'),
    (OutOfTime('no time for 8 images'), STOPPED, 'no time for 8 images'),
])
def test_measure_cases__status_and_reason(error, status, reason, tmp_path):
    first, second = _measure(tmp_path, _ends_with(error), [CASE, Case('another')])
    assert first.status == second.status == status and first.reason == reason
    assert first.result == dict(points=[1])  # is kept


def test_measure_cases__error_ends_the_process(tmp_path):
    with pytest.raises(SystemExit) as ended:
        _measure(tmp_path, _ends_with(RuntimeError('CUDA error: misaligned address\nmore')),
                 [CASE, Case('another')])
    assert ended.value.code == 1
    first, second = Records(tmp_path, 'training').read_all([CASE, Case('another')])
    assert first.status == FAILED and first.reason == 'RuntimeError: CUDA error: misaligned address'
    assert second.status == WAITING


def test_measure_cases__none_after_the_end(tmp_path):
    record, = _measure(tmp_path, _ends_with(None), seconds=-1.)
    assert record.status == WAITING and not record.result


def test_measure_case__time_and_earlier_result(tmp_path):
    seen = []

    def measure(context):
        seen.append((context.previous, context.has_time(50.), context.has_time(150.)))
        yield dict(points=[1, 2])

    Records(tmp_path, 'training').write(CASE, result=dict(points=[1]))
    part = Part('training', 'Training', 1., lambda scale: [CASE], measure)
    measure_case(part, CASE, Request('training', [CASE.name], 'tiny', 'cpu', str(tmp_path), 0.), 100.)
    assert seen == [(dict(points=[1]), True, False)]


def _fits(largest, tried):
    """A measurement that runs out of memory with more than ``largest`` images."""

    def measure(batch_size):
        tried.append(batch_size)
        if batch_size > largest:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory.')
        return dict(batch_size=batch_size)

    return measure


def _double(measure, start=1, limit=64, previous=None, has_time=lambda seconds: True):
    result = list(double_batch_size(measure, start, limit, previous or {}, has_time))[-1]
    return [point['batch_size'] for point in result['points']], result['too_large']


@pytest.mark.parametrize('largest, start, tried, sizes, too_large', [
    (5, 1, [1, 2, 4, 8], [1, 2, 4], 8),
    (1000, 8, [8, 16, 32, 64], [8, 16, 32, 64], None),
    (2, 8, [8, 4, 2], [2], 4),
    (8, 8, [8, 16], [8], 16),
])
def test_double_batch_size__until_it_does_not_fit(largest, start, tried, sizes, too_large):
    found = []
    assert _double(_fits(largest, found), start) == (sizes, too_large)
    assert found == tried


def test_double_batch_size__continues_after_an_earlier_run():
    tried = []
    previous = dict(points=[dict(batch_size=1), dict(batch_size=2)], too_large=None)
    assert _double(_fits(8, tried), previous=previous) == ([1, 2, 4, 8], 16) and tried == [4, 8, 16]


def test_double_batch_size__single_image_does_not_fit():
    with pytest.raises(CannotRun, match='out of memory with one image'):
        _double(_fits(0, []), start=2)


def test_double_batch_size__no_time():
    results = []
    with pytest.raises(OutOfTime, match='no time for 4 images or more'):
        for result in double_batch_size(_fits(64, []), 2, 64, {}, lambda seconds: False):
            results.append(result)
    assert results == [dict(points=[dict(batch_size=2)], too_large=None)]


class _Model:
    """Counts the steps; its data preprocessor changes the samples, as that of a detector."""
    num_things_classes = num_stuff_classes = 2

    def __init__(self):
        self.sizes = []

    def train_step(self, batch, optim_wrapper):
        for sample in batch['data_samples']:
            assert 'seen' not in sample
            sample.set_metainfo(dict(seen=True))
        self.sizes.append(len(batch['inputs']))
        self.kept = torch.zeros(250)


class _OptimWrapper:

    def zero_grad(self):
        pass


def test_measure_steps__median_and_first_step(monkeypatch):
    clock = iter([7., 1., 2., 6., 3.])  # the first step, one of the warm-up, three measured ones

    def time_in_turns(steps, rounds, warmup):
        for _ in range(rounds):
            steps['step']()
        return dict(step=[next(clock) for _ in range(rounds)])

    monkeypatch.setattr(trainee_module, 'time_in_turns', time_in_turns)
    model = _Model()
    scale = TINY._replace(warmup=2, rounds=3)
    case = Case('a', dict(model=TINY.models[0].title))
    context = Context(case, scale, 'cpu', None, {}, None)
    point = measure_steps(context, Trainee(model, _OptimWrapper(), None), 6)
    assert point == dict(batch_size=6, seconds=3., images_per_second=2., peak_memory=4 * 250, first_step=7.)
    assert model.sizes == [6] * 6  # with one more for the memory


def test_stopwatch__inner_sections(monkeypatch):
    times = iter([0., 2., 5., 6., 7., 10., 20., 21.])
    monkeypatch.setattr('remax_mm.benchmarks.gpu_report.step_shares.time.perf_counter', lambda: next(times))
    waits = []
    stopwatch = Stopwatch(lambda: waits.append(1))

    class Criterion:

        def match(self, value):
            return value + 1

    criterion = Criterion()
    stopwatch.watch(criterion, 'match', 'matching')
    with stopwatch.section('forward'):
        assert criterion.match(1) == 2
        assert criterion.match(value=2) == 3
    with stopwatch.section('data'):
        pass
    assert stopwatch.seconds == dict(matching=3. + 1., forward=10. - 4., data=1.) and len(waits) == 8


class _Report:

    def __init__(self, when, outcome, longrepr=None):
        self.nodeid, self.when, self.longrepr = 'test_a.py::test_a', when, longrepr
        self.failed, self.skipped = outcome == 'failed', outcome == 'skipped'
        self.longreprtext = str(longrepr)


def test_outcomes__counts():
    outcomes = Outcomes()
    reason = ('file', 3, 'Skipped: needs a GPU')
    for when, outcome, longrepr in [('setup', 'passed', None), ('call', 'passed', None),
                                    ('teardown', 'passed', None), ('setup', 'skipped', reason),
                                    ('setup', 'skipped', reason), ('call', 'failed', 'long\nE  1 != 2')]:
        outcomes.pytest_runtest_logreport(_Report(when, outcome, longrepr))
    outcomes.pytest_collectreport(_Report('collect', 'failed', 'ImportError: a'))
    assert outcomes.counts == dict(passed=1, skipped=2, failed=2) and outcomes.reasons == ['needs a GPU']
    assert outcomes.failures == ['test_a.py::test_a: E  1 != 2', 'test_a.py::test_a: ImportError: a']
