"""The comparison of relaxations, with a trainer that only writes the log of a training."""
import copy
import importlib.util
import json
import math
import textwrap
from pathlib import Path

import pytest
from mmengine.config import Config, DictAction

from remax_mm.analysis.comparison import compare_runs, format_comparison, measure_spread, read_final_metrics
from tests.conftest import REPOSITORY


def _load_tool():
    path = REPOSITORY / 'tools' / 'analysis_tools' / 'compare_relaxations.py'
    spec = importlib.util.spec_from_file_location('compare_relaxations', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


TOOL = _load_tool()


@pytest.fixture
def trainer(tmp_path) -> Path:
    """PQ is ten times the place of the variant plus the seed; runs named in the file `broken` fail."""
    path = tmp_path / 'trainer.py'
    path.write_text(
        textwrap.dedent(f'''
        import json, sys
        from pathlib import Path
        names = {[variant.config for variant in TOOL.FAMILIES['kmax'].variants.values()]!r}
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
    TOOL.main(['--work-dir', str(tmp_path / 'out'), '--iterations', '24'], trainer)
    table = (tmp_path / 'out' / 'comparison.md').read_text()
    # Seeds 0, 1, 2: the mean lies 1 above the lowest, and the sample standard deviation is 1.
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
def test_compare_relaxations__goes_on_where_it_stopped(trainer, tmp_path, capsys, jobs):
    arguments = ['--work-dir', str(tmp_path / 'out'), '--seeds', '2', '--jobs', jobs]
    arguments += ['--variants', 'kmax', 'sigmoid']
    (tmp_path / 'broken').write_text('sigmoid seed0\nsigmoid seed1')
    with pytest.raises(SystemExit, match='2 of 4 runs failed'):
        TOOL.main(arguments, trainer)
    printed = capsys.readouterr().out
    assert 'FAILED sigmoid, seed 0: FloatingPointError: a loss is not finite' in printed
    assert '| sigmoid | 0 | – | – | – |' in printed
    assert len(_calls(tmp_path)) == 4

    # What failed is tried again, what is done is not
    (tmp_path / 'broken').unlink()
    TOOL.main(arguments, trainer)
    assert sorted(_calls(tmp_path)[4:]) == ['sigmoid seed0', 'sigmoid seed1']
    assert '2 of 4 runs are done already' in capsys.readouterr().out
    TOOL.main(arguments, trainer)
    assert len(_calls(tmp_path)) == 6

    # One seed more costs only that seed, other settings are another experiment
    TOOL.main([*arguments, '--seeds', '3'], trainer)
    assert sorted(_calls(tmp_path)[6:]) == ['kmax seed2', 'sigmoid seed2']
    with pytest.raises(ValueError, match='choose another --work-dir'):
        TOOL.main([*arguments, '--lr', '0.1'], trainer)
    assert len(_calls(tmp_path)) == 8


def test_compare_relaxations__variants_differ_in_what_their_names_say():
    """By the configs as they are trained, options included, up to the seed."""

    def config(variant: str) -> dict:
        run, = TOOL.plan_runs(TOOL.parse_args(['--seeds', '1', '--variants', variant]))
        config = Config.fromfile(run.config)
        options = dict(option.split('=', maxsplit=1) for option in run.options)
        config.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in options.items()})
        return config.to_dict()

    kmax, sigmoid, remask, remax = map(config, TOOL.FAMILIES['kmax'].variants)
    assert kmax['optim_wrapper']['optimizer']['lr'] == 4e-3
    assert kmax['randomness'] == dict(seed=0)
    assert kmax['param_scheduler'] == Config.fromfile(
        REPOSITORY / 'configs/mini/kmax_mnv3-s_1xb8-1k_mini-129.py').to_dict()['param_scheduler']

    kmax['model']['panoptic_head']['criterion']['loss_mask_id']['type'] = 'SigmoidMaskIDLoss'
    assert kmax == sigmoid

    # Variables that the base config of the relaxations defines, and that nothing reads
    for config in (remask, remax):
        for name in ('remax', 'linear_warmup', 'step_schedules'):
            del config[name]
    head = remask['model']['panoptic_head']
    assert head['remask']['type'] == 'ReMask' and head['criterion'].pop('reclass') is None
    sigmoid['model']['panoptic_head']['remask'] = head['remask']
    sigmoid['model']['panoptic_head']['criterion']['loss_stage_sem'] = head['criterion']['loss_stage_sem']
    assert sigmoid == remask

    head['criterion']['reclass'] = dict(type='ReClass')
    assert remask == remax


@pytest.mark.parametrize('family', ['mask2former', 'maskformer'])
def test_compare_relaxations__families_of_mmdet(family):
    """Each variant is the relaxed model without what its name does not say, at the recipe of the configs."""
    runs = TOOL.plan_runs(TOOL.parse_args(['--family', family, '--seeds', '1']))
    configs = []
    for run in runs:
        config = Config.fromfile(run.config)
        before = copy.deepcopy(config.to_dict())
        options = dict(option.split('=', maxsplit=1) for option in run.options)
        config.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in options.items()})
        configs.append(config.to_dict())
        for key in ('train_cfg', 'optim_wrapper', 'param_scheduler'):
            assert configs[-1][key] == before[key]
    assert [run.variant for run in runs] == [family, f'{family}-remask', f'{family}-remask-reclass']

    plain, remask, remax = configs
    assert remask['model']['panoptic_head'].pop('reclass') is None
    assert remax['model']['panoptic_head'].pop('reclass') == dict(type='ReClass')
    assert remask == remax
    head = remask['model']['panoptic_head']
    assert head.pop('remask')['type'] == 'ReMask' and head.pop('loss_sem')
    assert head['type'].startswith('ReMaX') and head['loss_cls']['type'] == 'SoftTargetCrossEntropyLoss'
    head['type'], head['loss_cls']['type'] = head['type'][len('ReMaX'):], 'CrossEntropyLoss'
    assert remask == plain


def test_compare_relaxations__variants_of_the_family_only(capsys):
    with pytest.raises(SystemExit):
        TOOL.parse_args(['--family', 'mask2former', '--variants', 'sigmoid'])
    assert "but got ['sigmoid']" in capsys.readouterr().err
    args = TOOL.parse_args(['--family', 'mask2former'])
    assert (args.iterations, args.lr, args.work_dir.name) == (600, 1e-3, 'mask2former')


def test_measure_spread__by_hand():
    spread = measure_spread([1., 2., 6.])
    assert (spread.runs, spread.mean, spread.low, spread.high) == (3, 3, 1, 6)
    assert spread.deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert math.isnan(measure_spread([5.]).deviation)
    with pytest.raises(ValueError, match='at least one run'):
        measure_spread([])


def test_format_comparison__one_run_has_no_spread():
    runs = dict(a={0: dict(PQ=50.126, PQ_th=1., PQ_st=2.)}, b={})
    assert '| a | 1 | 50.13 | 1.00 | 2.00 |' in format_comparison(runs)
    assert list(compare_runs(runs)) == ['a']


def test_read_final_metrics__latest_training_and_last_iteration(tmp_path):
    with pytest.raises(FileNotFoundError, match='scalars.json'):
        read_final_metrics(tmp_path, 4)
    for time, pq in (('20260101_000000', 1.), ('20260101_000001', 2.)):
        log = tmp_path / time / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True)
        lines = [{**{f'coco_panoptic/{q}': pq for q in ('PQ', 'PQ_th', 'PQ_st')}, 'step': 4}, dict(step=5)]
        log.write_text('\n'.join(map(json.dumps, lines)) + '\n')
    assert read_final_metrics(tmp_path, 4) == dict(PQ=2., PQ_th=2., PQ_st=2.)
    with pytest.raises(ValueError, match='iteration 5'):
        read_final_metrics(tmp_path, 5)
