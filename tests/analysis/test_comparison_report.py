"""Tables and plots of a comparison, from made-up outcomes."""
import json
from pathlib import Path

import pytest

from remax_mm.analysis.comparison_report import draw_comparison, write_comparison
from remax_mm.analysis.study_runs import Outcome, Plan, Run

PLAN = Plan('kmax', ['softmax', 'sigmoid', 'sigmoid-prior'], range(3), 'softmax')


def _outcome(variant, seed, pq=None, **others):
    run = Run('', variant, seed, Path('config.py'), [], Path('work') / variant / f'seed{seed}')
    test = None if pq is None else dict(PQ=pq, PQ_th=pq - 1, PQ_st=pq + 1, SQ=80.)
    curve = {} if pq is None else {10: dict(PQ=pq / 2), 20: dict(PQ=pq)}
    return Outcome(run, test, curve, **others)


@pytest.fixture
def outcomes():
    """The sigmoid is 1, 2 and 6 above the softmax (see test_comparison.py); the third variant has one run."""
    return [
        *(_outcome('softmax', seed, 10. * (seed + 1)) for seed in range(3)),
        *(_outcome('sigmoid', seed, pq) for seed, pq in enumerate((11., 22., 36.))),
        _outcome('sigmoid-prior', 0, 9.),
        _outcome('sigmoid-prior', 1, error='FloatingPointError: a loss is not finite (see train.log)'),
        _outcome('sigmoid-prior', 2),
    ]


def test_write_comparison__table(outcomes, tmp_path):
    text = write_comparison(PLAN, outcomes, tmp_path)
    assert (tmp_path / 'comparison.md').read_text() == text
    assert [line for line in text.splitlines() if line.startswith('|')] == [
        '| variant | runs | PQ | PQ_th | PQ_st | difference | pairs (needed) |',
        '| --- | --- | --- | --- | --- | --- | --- |',
        '| softmax | 3 | 20.00 ± 10.00 | 19.00 ± 10.00 | 21.00 ± 10.00 |  |  |',
        # Deviation of 11, 22, 36: sqrt((144 + 1 + 169) / 2); 3 ± 4.303 sqrt(7 / 3); and by the printed table
        # of Student's t, 2.015 sqrt(7 / 45) = 0.795 for 45 pairs, 2.017 sqrt(7 / 44) = 0.804 for 44.
        '| sigmoid | 3 | 23.00 ± 12.53 | 22.00 ± 12.53 | 24.00 ± 12.53 | +3.00 [-3.57, +9.57] | 3 (45) |',
        '| sigmoid + prior | 1 | 9.00 | 8.00 | 10.00 | -1.00 | 1 (–) |',
    ]
    assert '- sigmoid-prior, seed 1: FloatingPointError: a loss is not finite' in text
    assert '- sigmoid-prior, seed 2: 0 iterations validated' in text


def test_write_comparison__numbers(outcomes, tmp_path):
    write_comparison(PLAN, outcomes, tmp_path)
    numbers = json.loads((tmp_path / 'comparison.json').read_text())
    assert numbers['settings']['baseline'] == 'softmax' and numbers['settings']['seeds'] == [0, 1, 2]
    assert list(numbers['failed']) == ['sigmoid-prior, seed 1']
    softmax, sigmoid, prior = numbers['variants']
    assert softmax['runs']['2']['test'] == dict(PQ=30, PQ_th=29, PQ_st=31, SQ=80)
    assert softmax['runs']['2']['curve'] == {'10': dict(PQ=15), '20': dict(PQ=30)}
    assert softmax['spread']['PQ'] == dict(runs=3, mean=20, deviation=10, low=10, high=30)
    assert softmax['difference'] == {}
    assert sigmoid['difference']['PQ_th']['mean'] == 3
    assert prior['spread']['PQ']['deviation'] is None and prior['difference']['PQ']['low'] is None


def test_draw_comparison__files(outcomes, tmp_path):
    assert draw_comparison(PLAN, outcomes[-1:], tmp_path) == []
    files = draw_comparison(PLAN, outcomes, tmp_path)
    assert [file.name for file in files] == ['curves.png', 'seeds.png']
    assert all(file.stat().st_size > 5000 for file in files)
