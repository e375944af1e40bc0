"""The command line of the comparison, with a trainer that only writes the log of a training."""
import json
import runpy
import textwrap
from pathlib import Path

import pytest

from remax_mm.analysis.relaxation_runs import FAMILIES
from tests.conftest import REPOSITORY

TOOL = runpy.run_path(str(REPOSITORY / 'tools' / 'analysis_tools' / 'compare_relaxations.py'))
MAIN, PARSE_ARGS = TOOL['main'], TOOL['parse_args']


@pytest.fixture
def trainer(tmp_path) -> Path:
    """PQ is ten times the index of the variant plus the seed; runs named in the file `broken` fail."""
    path = tmp_path / 'trainer.py'
    path.write_text(
        textwrap.dedent(f'''
        import json, sys
        from pathlib import Path
        names = {[variant.config for variant in FAMILIES['kmax'].variants.values()]!r}
        config, folder = Path(sys.argv[1]), Path(sys.argv[3])
        options = dict(option.split('=') for option in sys.argv[5:])
        with open({str(tmp_path / 'calls')!r}, 'a') as calls:
            calls.write(f'{{folder.parent.name}} {{folder.name}}\\n')
        broken = Path({str(tmp_path / 'broken')!r})
        if broken.exists() and folder.parent.name + ' ' + folder.name in broken.read_text():
            raise FloatingPointError('a loss is not finite')
        pq = 10 * names.index(config.name) + int(options['randomness.seed'])
        step = int(options['train_cfg.max_iters'])
        log = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True, exist_ok=True)
        val = {{f'coco_panoptic/PQ{{end}}': pq + d for end, d in (('', 0), ('_th', 1), ('_st', 2))}}
        log.write_text('\\n'.join(json.dumps(l) for l in (dict(loss=1., step=step), dict(val, step=step))))
        '''))
    return path


def _calls(tmp_path) -> list:
    path = tmp_path / 'calls'
    return path.read_text().splitlines() if path.exists() else []


def test_compare_relaxations__table(trainer, tmp_path, capsys):
    MAIN(['--work-dir', str(tmp_path / 'out'), '--iterations', '24'], trainer)
    table = (tmp_path / 'out' / 'comparison.md').read_text()
    # Seeds 0, 1, 2: the mean is 1 above the lowest, and the sample standard deviation is 1.
    assert table.splitlines() == [
        '| variant | runs | PQ | PQ_th | PQ_st |',
        '| --- | --- | --- | --- | --- |',
        '| kMaX (softmax) | 3 | 1.00 ± 1.00 (0.00 to 2.00) | 2.00 ± 1.00 (1.00 to 3.00) | '
        '3.00 ± 1.00 (2.00 to 4.00) |',
        '| sigmoid | 3 | 11.00 ± 1.00 (10.00 to 12.00) | 12.00 ± 1.00 (11.00 to 13.00) | '
        '13.00 ± 1.00 (12.00 to 14.00) |',
        '| sigmoid + ReMask | 3 | 21.00 ± 1.00 (20.00 to 22.00) | 22.00 ± 1.00 (21.00 to 23.00) | '
        '23.00 ± 1.00 (22.00 to 24.00) |',
        '| sigmoid + ReMask + ReClass | 3 | 31.00 ± 1.00 (30.00 to 32.00) | 32.00 ± 1.00 (31.00 to 33.00) | '
        '33.00 ± 1.00 (32.00 to 34.00) |',
    ]
    assert table in capsys.readouterr().out + '\n'
    numbers = json.loads((tmp_path / 'out' / 'comparison.json').read_text())
    assert numbers['iterations'] == 24 and numbers['lr'] == 4e-3
    assert numbers['runs']['sigmoid']['2'] == dict(PQ=12, PQ_th=13, PQ_st=14)
    assert numbers['spread']['sigmoid']['PQ'] == dict(runs=3, mean=11, deviation=1, low=10, high=12)


@pytest.mark.parametrize('jobs', ['1', '3'])
def test_compare_relaxations__resumes(trainer, tmp_path, capsys, jobs):
    arguments = ['--work-dir', str(tmp_path / 'out'), '--seeds', '2', '--jobs', jobs]
    arguments += ['--variants', 'kmax', 'sigmoid']
    (tmp_path / 'broken').write_text('sigmoid seed0\nsigmoid seed1')
    with pytest.raises(SystemExit, match='2 of 4 runs failed'):
        MAIN(arguments, trainer)
    printed = capsys.readouterr().out
    assert 'FAILED sigmoid, seed 0: FloatingPointError: a loss is not finite' in printed
    assert '| sigmoid | 0 | – | – | – |' in printed
    assert len(_calls(tmp_path)) == 4

    # Failed runs are tried again, finished ones are not.
    (tmp_path / 'broken').unlink()
    MAIN(arguments, trainer)
    assert sorted(_calls(tmp_path)[4:]) == ['sigmoid seed0', 'sigmoid seed1']
    assert '2 of 4 runs are done already' in capsys.readouterr().out
    MAIN(arguments, trainer)
    assert len(_calls(tmp_path)) == 6

    # With one more seed only that seed is trained; other settings are another experiment.
    MAIN([*arguments, '--seeds', '3'], trainer)
    assert sorted(_calls(tmp_path)[6:]) == ['kmax seed2', 'sigmoid seed2']
    with pytest.raises(ValueError, match='choose another --work-dir'):
        MAIN([*arguments, '--lr', '0.1'], trainer)
    assert len(_calls(tmp_path)) == 8


def test_compare_relaxations__variants_of_the_family_only(capsys):
    with pytest.raises(SystemExit):
        PARSE_ARGS(['--family', 'mask2former', '--variants', 'sigmoid'])
    assert "but got ['sigmoid']" in capsys.readouterr().err
    args = PARSE_ARGS(['--family', 'mask2former'])
    assert (args.iterations, args.lr, args.work_dir.name) == (600, 1e-3, 'mask2former')
