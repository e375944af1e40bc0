"""The plan of a comparison, and its runs with a trainer that fails."""
from pathlib import Path

import pytest
from mmengine.config import Config, DictAction
from mmengine.fileio import dump

from remax_mm.analysis.relaxation_runs import (FAMILIES, Outcome, Plan, Run, plan_runs, read_finished,
                                               train_runs, write_comparison)
from tests.conftest import REPOSITORY

CONFIGS = REPOSITORY / 'configs' / 'mini'


def _plan(family, variants, seeds=1):
    family_plan = Plan(family, variants, seeds, FAMILIES[family].iterations, FAMILIES[family].lr)
    return plan_runs(family_plan, CONFIGS, Path('work'))


def _trained_config(run):
    config = Config.fromfile(run.config)
    options = dict(option.split('=', maxsplit=1) for option in run.options)
    config.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in options.items()})
    return config


def test_plan_runs__seed_by_seed():
    runs = _plan('kmax', ['kmax', 'sigmoid'], seeds=2)
    assert [(run.variant, run.seed) for run in runs] == [('kmax', 0), ('sigmoid', 0), ('kmax', 1),
                                                         ('sigmoid', 1)]
    assert [run.folder for run in runs[1:3]] == [Path('work/sigmoid/seed0'), Path('work/kmax/seed1')]
    assert [run.options[0] for run in runs[:3]] == ['randomness.seed=0'] * 2 + ['randomness.seed=1']


def test_plan_runs__variants_of_kmax():
    """Each variant changes what its name says, in the configs as they are trained, with options."""

    def config(variant: str) -> dict:
        return _trained_config(*_plan('kmax', [variant])).to_dict()

    kmax, sigmoid, remask, remax = map(config, FAMILIES['kmax'].variants)
    assert kmax['optim_wrapper']['optimizer']['lr'] == 4e-3
    assert kmax['randomness'] == dict(seed=0)
    assert kmax['param_scheduler'] == Config.fromfile(
        REPOSITORY / 'configs/mini/kmax_mnv3-s_1xb8-1k_mini-129.py').to_dict()['param_scheduler']

    kmax['model']['panoptic_head']['criterion']['loss_mask_id']['type'] = 'SigmoidMaskIDLoss'
    kmax['model']['panoptic_head']['transformer_decoder']['mask_prior'] = 1 / 24
    assert kmax == sigmoid

    # Variables of the base config of the relaxations that nothing reads.
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
def test_plan_runs__families_of_mmdet(family):
    """Each variant is the relaxed model without the relaxations that its name lacks."""
    runs = _plan(family, list(FAMILIES[family].variants))
    configs = []
    for run in runs:
        before = Config.fromfile(run.config).to_dict()
        configs.append(_trained_config(run).to_dict())
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


@pytest.fixture
def run(tmp_path) -> Run:
    return Run('a title', 'variant', 0, Path('config.py'), ['a=1'], tmp_path / 'variant' / 'seed0')


def test_read_finished__same_settings_only(run):
    assert read_finished(run) is None
    run.folder.mkdir(parents=True)
    metrics = dict(PQ=1., PQ_th=2., PQ_st=3.)
    dump(
        dict(settings=dict(config='config.py', options=['a=1']), metrics=metrics),
        run.folder / 'metrics.json')
    assert read_finished(run) == metrics
    with pytest.raises(ValueError, match=f'in {run.folder}, .* choose another --work-dir'):
        read_finished(run._replace(options=['a=2']))


def test_train_runs__failure_has_the_last_line_of_the_log(run, tmp_path):
    (tmp_path / 'trainer.py').write_text('print("a"); raise FloatingPointError("a loss is not finite")')
    outcome, = train_runs([run], 4, tmp_path / 'trainer.py')
    log = run.folder / 'train.log'
    assert outcome == Outcome(run, None, f'FloatingPointError: a loss is not finite (see {log})')
    assert read_finished(run) is None


def test_write_comparison__without_failed_runs(run, tmp_path):
    outcomes = [
        Outcome(run, dict(PQ=1., PQ_th=2., PQ_st=3.)),
        Outcome(run._replace(title='other'), None, 'an error')
    ]
    table = write_comparison(Plan('kmax', [], 1, 4, 0.1), outcomes, tmp_path)
    assert table.splitlines()[2:] == ['| a title | 1 | 1.00 | 2.00 | 3.00 |', '| other | 0 | – | – | – |']
    assert (tmp_path / 'comparison.md').read_text() == f'{table}\n'
