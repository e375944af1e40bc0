"""Tables and plots of a comparison, from made-up outcomes."""
import json
from pathlib import Path

import pytest

from remax_mm.analysis.comparison_report import draw_comparison, write_comparison
from remax_mm.analysis.relaxation_log_plot import _mean_curves
from remax_mm.analysis.study_plan import Plan, Run
from remax_mm.analysis.study_runs import Outcome

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
    assert [file.name for file in files] == ['comparison.png']
    assert all(file.stat().st_size > 5000 for file in files)


def test_write_comparison__numbers_of_the_paper(tmp_path):
    plan = Plan('table3', ['0', '4', '6'], [0], '0')
    text = write_comparison(plan, [_outcome('0', 0, 60.), _outcome('4', 0, 61.5), _outcome('6', 0)], tmp_path)
    rows = [line.split(' | ') for line in text.splitlines() if 'ReMasks' in line and line.startswith('|')]
    assert [(row[0], row[5], row[-1]) for row in rows] == [
        ('| 0 ReMasks', '', '50.4 |'),
        ('| 4 ReMasks', '+1.50', '52.4 (+2.0) |'),
        ('| 6 ReMasks', '', '51.5 (+1.1) |'),
    ]


def test_write_comparison__conditions(tmp_path):
    """A table for each condition, and the differences of all of them first."""
    plan = Plan('schedules', ['softmax', 'sigmoid-prior'], [0, 1], 'sigmoid-prior', ['600', '2000'])
    values = {'600': [(10., 12.), (10., 10.)], '2000': [(30., 20.), (10., 10.)]}
    outcomes = []
    for condition, pairs in values.items():
        for seed, pair in enumerate(pairs):
            for variant, pq in zip(plan.variants, pair):
                outcome = _outcome(variant, seed, pq)
                outcomes.append(outcome._replace(run=outcome.run._replace(condition=condition)))
    text = write_comparison(plan, outcomes, tmp_path)
    # Differences -2 and 0, and 10 and 0: the standard errors are 1 and 5, Student's factor is 12.706.
    assert '| 600 iterations | -1.00 [-13.71, +11.71] |' in text
    assert '| 2000 iterations | +5.00 [-58.53, +68.53] |' in text
    assert text.index('| 2000 iterations |') < text.index('**600 iterations**') < text.index('**2000 iter')
    assert [row.split(' | ')[:3] for row in text.splitlines()
            if row.startswith('| softmax |')] == [['| softmax', '2', '10.00 ± 0.00'],
                                                  ['| softmax', '2', '20.00 ± 14.14']]
    assert len(draw_comparison(plan, outcomes, tmp_path)) == 1


def test_draw_comparison__relaxation_log(tmp_path):
    outcomes = []
    for seed in range(2):
        outcome = _outcome('remask', seed, 10.)
        folder = tmp_path / f'seed{seed}'
        log = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True)
        log.write_text('\n'.join(
            json.dumps({
                'loss': 1.,
                'step': step,
                'd0.fp_fn': 3. + seed,
                'd0.gate_inside': step + seed,
                'final.fp_fn': 2.
            }) for step in (5, 10)))
        outcomes.append(outcome._replace(run=outcome.run._replace(folder=folder)))
    assert _mean_curves([outcome.run.folder for outcome in outcomes]) == {
        'd0.fp_fn': {
            5: 3.5,
            10: 3.5
        },
        'd0.gate_inside': {
            5: 5.5,
            10: 10.5
        },
        'final.fp_fn': {
            5: 2,
            10: 2
        }
    }
    plan = PLAN._replace(variants=['softmax', 'remask'], log_relaxation=True)
    names = [path.name for path in draw_comparison(plan, outcomes, tmp_path)]
    assert names == ['comparison.png', 'relaxation.png'] and (tmp_path / 'relaxation.png').is_file()
