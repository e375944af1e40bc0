"""The command line of the comparison, with a trainer that only writes what a training writes."""
import json
import os
import runpy
import signal
import textwrap
import threading
from pathlib import Path

import pytest

from remax_mm.analysis.studies import STUDIES
from tests.conftest import REPOSITORY

TOOL = runpy.run_path(str(REPOSITORY / 'tools' / 'analysis_tools' / 'compare_relaxations.py'))
MAIN, PARSE_ARGS = TOOL['main'], TOOL['parse_args']


@pytest.fixture
def trainer(tmp_path) -> Path:
    """PQ is ten times the index of the variant plus the seed; runs named in the file `broken` fail."""
    path = tmp_path / 'trainer.py'
    path.write_text(
        textwrap.dedent(f'''
        import json, sys, time
        from pathlib import Path
        folder = Path(sys.argv[3])
        options = dict(option.split('=') for option in sys.argv[sys.argv.index('--cfg-options') + 1:])
        with open({str(tmp_path / 'calls')!r}, 'a') as calls:
            calls.write(f'{{folder.parent.name}} {{folder.name}}\\n')
        broken = Path({str(tmp_path / 'broken')!r})
        if broken.exists() and folder.parent.name + ' ' + folder.name in broken.read_text():
            raise FloatingPointError('a loss is not finite')
        if Path({str(tmp_path / 'slow')!r}).exists():
            time.sleep(60)
        names = {list(STUDIES['kmax'].variants)!r}
        pq = 10 * names.index(folder.parent.name) + int(options['randomness.seed'])
        step = int(options['train_cfg.max_iters'])
        log = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True, exist_ok=True)
        metrics = {{f'coco_panoptic/PQ{{end}}': pq + d for end, d in (('', 0), ('_th', 1), ('_st', 2))}}
        lines = dict(loss=1., step=step), dict(metrics, step=step)
        log.write_text('\\n'.join(map(json.dumps, lines)))
        (folder / 'test_metrics.json').write_text(json.dumps(metrics))
        '''))
    return path


def _calls(tmp_path) -> list:
    path = tmp_path / 'calls'
    return path.read_text().splitlines() if path.exists() else []


def test_compare_relaxations__table(trainer, tmp_path, capsys):
    MAIN(['--work-dir', str(tmp_path / 'out'), '--iterations', '24', '--jobs', '2'], trainer)
    text = (tmp_path / 'out' / 'comparison.md').read_text()
    # Seeds 0, 1, 2: the mean is 1 above the lowest, and the sample standard deviation is 1. All differences
    # to the third variant are equal.
    assert text.splitlines()[2:11] == [
        '24 iterations, learning rate 0.004, 128 slots, seeds 0, 1, 2',
        '',
        '| variant | runs | PQ | PQ_th | PQ_st | difference | pairs (needed) |',
        '| --- | --- | --- | --- | --- | --- | --- |',
        '| softmax | 3 | 1.00 ± 1.00 | 2.00 ± 1.00 | 3.00 ± 1.00 | -20.00 [-20.00, -20.00] | 3 (2) |',
        '| sigmoid | 3 | 11.00 ± 1.00 | 12.00 ± 1.00 | 13.00 ± 1.00 | -10.00 [-10.00, -10.00] | 3 (2) |',
        '| sigmoid + prior | 3 | 21.00 ± 1.00 | 22.00 ± 1.00 | 23.00 ± 1.00 |  |  |',
        '| + ReMask | 3 | 31.00 ± 1.00 | 32.00 ± 1.00 | 33.00 ± 1.00 | +10.00 [+10.00, +10.00] | 3 (2) |',
        '| + ReMask + ReClass | 3 | 41.00 ± 1.00 | 42.00 ± 1.00 | 43.00 ± 1.00 | +20.00 [+20.00, +20.00] | '
        '3 (2) |',
    ]
    assert text in capsys.readouterr().out
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert {'comparison.json', 'comparison.png', 'softmax', 'remask-reclass'} <= names


def test_compare_relaxations__resumes(trainer, tmp_path, capsys):
    arguments = ['--work-dir', str(tmp_path / 'out'), '--first-seed', '5', '--seeds', '2', '--jobs', '3']
    arguments += ['--variants', 'softmax', 'sigmoid']
    (tmp_path / 'broken').write_text('sigmoid seed5\nsigmoid seed6')
    with pytest.raises(SystemExit, match='1'):
        MAIN(arguments, trainer)
    printed = capsys.readouterr().out
    assert '2 of 4 runs failed and 0 are not finished' in printed
    assert 'FAILED sigmoid, seed 5: FloatingPointError: a loss is not finite' in printed
    assert '| sigmoid | 0 | – | – | – |' in printed
    assert len(_calls(tmp_path)) == 4

    # Failed runs are tried again, finished ones are not.
    (tmp_path / 'broken').unlink()
    MAIN(arguments, trainer)
    assert sorted(_calls(tmp_path)[4:]) == ['sigmoid seed5', 'sigmoid seed6']
    assert '2 of 4 runs are done already' in capsys.readouterr().out
    MAIN(arguments, trainer)
    assert len(_calls(tmp_path)) == 6

    # With one more seed only that seed is trained; other settings are another experiment.
    MAIN([*arguments, '--seeds', '3'], trainer)
    assert sorted(_calls(tmp_path)[6:]) == ['sigmoid seed7', 'softmax seed7']
    with pytest.raises(SystemExit, match='error: .* choose another --work-dir'):
        MAIN([*arguments, '--lr', '0.1'], trainer)
    assert len(_calls(tmp_path)) == 8


def test_compare_relaxations__reuses_runs_of_other_studies(trainer, tmp_path, capsys):
    """The default ReMaX and its parts are variants of several studies."""
    settings = ['--seeds', '2', '--iterations', '24']
    MAIN(['--work-dir',
          str(tmp_path / 'all' / 'kmax'), '--variants', 'remask-reclass', 'softmax', *settings], trainer)
    table2 = [
        '--study', 'table2', '--work-dir',
        str(tmp_path / 'all' / 'table2'), '--variants', 'remax', 'softmax'
    ]
    MAIN([*table2, *settings, '--reuse', str(tmp_path / 'all')], trainer)
    assert '4 runs are copied' in capsys.readouterr().out
    assert len(_calls(tmp_path)) == 4
    text = (tmp_path / 'all' / 'table2' / 'comparison.md').read_text()
    assert '| sigmoid + prior, ReMaX | 2 | 40.50 ± 0.71 |' in text and '| softmax | 2 | 0.50 ± 0.71 |' in text
    with pytest.raises(SystemExit, match='error: .*missing does not exist'):
        MAIN([*table2, *settings, '--reuse', str(tmp_path / 'missing')], trainer)


def test_compare_relaxations__time_budget(trainer, tmp_path, capsys):
    arguments = ['--work-dir', str(tmp_path / 'out'), '--seeds', '1', '--variants', 'softmax', 'sigmoid']
    (tmp_path / 'slow').touch()
    with pytest.raises(SystemExit, match='75'):
        MAIN([*arguments, '--time-budget', '1'], trainer)
    assert '0 of 2 runs failed and 2 are not finished' in capsys.readouterr().out
    (tmp_path / 'slow').unlink()
    MAIN(arguments, trainer)
    settings = json.loads((tmp_path / 'out' / 'comparison.json').read_text())['settings']
    assert settings['variants'] == ['softmax', 'sigmoid'] and settings['baseline'] == 'softmax'


def test_compare_relaxations__sigterm(trainer, tmp_path):
    """The trainings end with the comparison, which waits for them."""
    (tmp_path / 'slow').touch()
    timer = threading.Timer(2, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(SystemExit, match='143'):
        MAIN(['--work-dir', str(tmp_path / 'out'), '--seeds', '1', '--jobs', '2'], trainer)
    runs = [json.loads(path.read_text()) for path in tmp_path.glob('out/*/seed0/run.json')]
    assert len(runs) == 2 and all(run['test'] is None and not run['error'] for run in runs)


@pytest.mark.parametrize('arguments, message', [
    (['--family', 'mask2former', '--variants', 'sigmoid'], "but got ['sigmoid']"),
    (['--variants', 'softmax', '--baseline', 'sigmoid'], 'Expected --baseline among'),
    (['--conditions', 'small'], "Expected --conditions among [''], but got ['small']"),
    (['--time-budget', '0'], 'Expected --time-budget above 0, but got 0.0'),
    (['--first-seed', '-1'], 'Expected --first-seed of at least 0'),
    (['--study', 'schedules', '--iterations', '9'], 'Expected no --iterations for the study schedules'),
])  # yapf: disable
def test_compare_relaxations__refuses(arguments, message, capsys):
    with pytest.raises(SystemExit):
        PARSE_ARGS(arguments)
    assert message in capsys.readouterr().err


def test_compare_relaxations__baseline_is_that_of_the_study():
    assert PARSE_ARGS([]).baseline == 'sigmoid-prior'
    assert json.dumps(PARSE_ARGS(['--family', 'maskformer']).variants) == json.dumps(
        ['maskformer', 'maskformer-remask', 'maskformer-remask-reclass'])
