"""The plan of a study, and its runs with trainers that only write what a training writes."""
import time
from pathlib import Path

import pytest
from mmengine.config import Config, DictAction
from mmengine.fileio import load

from remax_mm.analysis.studies import STUDIES
from remax_mm.analysis.study_plan import Plan, Run, plan_runs
from remax_mm.analysis.study_runs import _STOPPED, Outcome, read_outcome, reuse_runs, train_runs
from remax_mm.engine.hooks.stop_on_signal_hook import EXIT_CODE
from tests.conftest import REPOSITORY

CONFIGS = REPOSITORY / 'configs' / 'mini'
SLOTS = 128


def _plan(study, variants, seeds=(0, ), **settings):
    return plan_runs(Plan(study, variants, seeds, variants[0], **settings), CONFIGS, Path('work'))


def _trained_config(run):
    config = Config.fromfile(run.config)
    options = dict(option.split('=', maxsplit=1) for option in run.options)
    config.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in options.items()})
    return config


def test_plan_runs__seed_by_seed():
    runs = _plan('kmax', ['softmax', 'sigmoid'], seeds=range(5, 7))
    assert [(run.variant, run.seed) for run in runs] == [('softmax', 5), ('sigmoid', 5), ('softmax', 6),
                                                         ('sigmoid', 6)]
    assert [run.folder for run in runs[1:3]] == [Path('work/sigmoid/seed5'), Path('work/softmax/seed6')]
    assert [run.options[0] for run in runs[:3]] == ['randomness.seed=5'] * 2 + ['randomness.seed=6']


def test_plan_runs__settings():
    """Iterations, learning rate and slots of the plan come before those of the study."""
    for settings, expected in (({}, (600, 4e-3, 128)), (dict(iterations=10000, lr=1e-3,
                                                             num_slots=24), (10000, 1e-3, 24))):
        config = _trained_config(*_plan('kmax', ['sigmoid-prior'], **settings))
        decoder = config.model.panoptic_head.transformer_decoder
        assert (config.train_cfg.max_iters, config.optim_wrapper.optimizer.lr, decoder.num_slots) == expected
        assert decoder.mask_prior == pytest.approx(1 / decoder.num_slots)
        iterations = expected[0]
        warmup, steps = config.param_scheduler
        assert warmup.end == iterations / 10
        assert steps.milestones == [iterations * 0.85, iterations * 0.95]
        # Six validations, the last one at the end.
        assert 5 * config.train_cfg.val_interval < iterations <= 6 * config.train_cfg.val_interval


def test_plan_runs__validation_and_test_differ():
    config = _trained_config(*_plan('kmax', ['softmax']))
    assert config.val_dataloader.dataset.ann_file == 'annotations/panoptic_val.json'
    assert config.val_dataloader.dataset.data_prefix == dict(
        img='images/val/', seg='annotations/panoptic_val/')
    assert config.test_dataloader.dataset.ann_file == 'annotations/panoptic_test.json'
    assert config.test_dataloader.dataset.data_prefix == dict(
        img='images/test/', seg='annotations/panoptic_test/')


def test_plan_runs__variants_of_kmax():
    """Each variant changes what its name says, in the configs as they are trained, with options."""

    def config(variant: str) -> dict:
        return _trained_config(*_plan('kmax', [variant])).to_dict()

    softmax, sigmoid, prior, remask, remax = map(config, STUDIES['kmax'].variants)
    assert softmax['randomness'] == dict(seed=0)
    softmax['model']['panoptic_head']['criterion']['loss_mask_id']['type'] = 'SigmoidMaskIDLoss'
    assert sigmoid['model']['panoptic_head']['transformer_decoder'].pop('mask_prior') is None
    assert softmax == sigmoid

    sigmoid['model']['panoptic_head']['transformer_decoder']['mask_prior'] = 1 / SLOTS
    assert sigmoid == prior

    # Variables of the base config of the relaxations that nothing reads.
    for config in (remask, remax):
        for name in ('remax', 'linear_warmup', 'step_schedules'):
            del config[name]
    head = remask['model']['panoptic_head']
    assert head['remask']['type'] == 'ReMask' and head['criterion'].pop('reclass') is None
    prior['model']['panoptic_head']['remask'] = head['remask']
    prior['model']['panoptic_head']['criterion']['loss_stage_sem'] = head['criterion']['loss_stage_sem']
    assert prior == remask

    head['criterion']['reclass'] = dict(type='ReClass')
    assert remask == remax


@pytest.mark.parametrize('study', ['mask2former', 'maskformer'])
def test_plan_runs__families_of_mmdet(study):
    """Each variant is the relaxed model without the relaxations that its name lacks."""
    runs = _plan(study, list(STUDIES[study].variants))
    configs = []
    for run in runs:
        before = Config.fromfile(run.config).to_dict()
        configs.append(_trained_config(run).to_dict())
        for key in ('optim_wrapper', 'param_scheduler'):
            assert configs[-1][key] == before[key]
    assert [run.variant for run in runs] == [study, f'{study}-remask', f'{study}-remask-reclass']

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
    return Run('', 'variant', 0, Path('config.py'), ['a=1'], tmp_path / 'variant' / 'seed0')


TRAINER = '''
import json, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[3])
last = folder / 'last_checkpoint'
done = int(last.read_text()) if '--resume' in sys.argv else 0
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
log = folder / f'2026010{done}_000000' / 'vis_data' / 'scalars.json'
log.parent.mkdir(parents=True)
for step in range(done + 1, 4):
    with log.open('a') as file:
        metrics = {'coco_panoptic/PQ': 10. * step, 'coco_panoptic/PQ/disc': 1., 'step': step}
        print(json.dumps(metrics), file=file)
    last.write_text(str(step))
    if step == 2 and not done:
        (folder / 'waits').touch()
        time.sleep(60)
metrics = {'coco_panoptic/PQ': 35., 'coco_panoptic/PQ/disc': 1.}
(folder / 'test_metrics.json').write_text(json.dumps(metrics))
'''


def test_train_runs__stops_in_time_and_resumes(run, tmp_path):
    trainer = tmp_path / 'trainer.py'
    trainer.write_text(TRAINER)
    waiting = run._replace(seed=1, folder=run.folder.with_name('seed1'))
    start = time.monotonic()
    stopped, untouched = train_runs([run, waiting], trainer, time_budget=2.)
    assert time.monotonic() - start < 30
    assert (run.folder / 'waits').exists()
    assert stopped.test is None and stopped.error == '' and stopped.curve == {1: dict(PQ=10), 2: dict(PQ=20)}
    assert stopped.seconds > 0 and untouched == Outcome(waiting)

    # The curve and the time of both parts are kept.
    finished, = train_runs([run], trainer)
    assert finished.test == dict(PQ=35) and finished.curve == {i: dict(PQ=10 * i) for i in (1, 2, 3)}
    assert finished.seconds > stopped.seconds
    assert finished == read_outcome(run)
    stored = load(run.folder / 'run.json')
    assert stored['settings'] == dict(config='config.py', options=['a=1'])
    assert len(stored['seconds']) == 2 and stored['seed'] == 0


def test_train_runs__exit_code_of_a_stopped_training():
    assert EXIT_CODE in _STOPPED


def test_train_runs__processes_run_side_by_side(run, tmp_path):
    """Each waits for the other one."""
    trainer = tmp_path / 'trainer.py'
    trainer.write_text(
        'import os, sys, time; from pathlib import Path\n'
        'folder = Path(sys.argv[3]); (folder / "started").write_text(os.environ["OMP_NUM_THREADS"])\n'
        'end = time.monotonic() + 30\n'
        'while len(list(folder.parent.glob("*/started"))) < 2:\n'
        '    assert time.monotonic() < end\n'
        '    time.sleep(0.05)\n'
        '(folder / "test_metrics.json").write_text("{}")')
    other = run._replace(seed=1, folder=run.folder.with_name('seed1'))
    assert [outcome.error for outcome in train_runs([run, other], trainer, jobs=2)] == ['', '']
    assert (run.folder / 'started').read_text() == '1'


def test_read_outcome__same_settings_only(run):
    assert read_outcome(run) == Outcome(run)
    run.folder.mkdir(parents=True)
    (run.folder / 'last_checkpoint').touch()
    with pytest.raises(ValueError, match='run.json.* choose another --work-dir'):
        read_outcome(run)
    (run.folder / 'run.json').write_text(
        '{"settings": {"config": "config.py", "options": ["a=1"]}, "seconds": [1.5, 2.5], "error": "",'
        ' "curve": {"7": {"PQ": 1.0}}, "test": {"PQ": 2.0}}')
    assert read_outcome(run) == Outcome(run, dict(PQ=2.), {7: dict(PQ=1.)}, 4.)
    with pytest.raises(ValueError, match=f'in {run.folder}, .* choose another --work-dir'):
        read_outcome(run._replace(options=['a=2']))


def test_reuse_runs__finished_with_the_same_settings(run, tmp_path):
    """As from another study, in which the same training is another variant."""
    trainer = tmp_path / 'trainer.py'
    trainer.write_text('from pathlib import Path; import sys\n'
                       'folder = Path(sys.argv[3]); (folder / "last_checkpoint").write_text("iter_3.pth")\n'
                       '(folder / "iter_3.pth").touch()\n'
                       '(folder / "test_metrics.json").write_text(\'{"coco_panoptic/PQ": 35.0}\')')
    finished, = train_runs([run], trainer)
    other = run._replace(condition='b', variant='c', folder=tmp_path / 'study' / 'b' / 'c' / 'seed0')
    changed = other._replace(options=['a=2'], folder=other.folder.with_name('seed1'))

    assert reuse_runs([other, changed], tmp_path) == [other]
    assert read_outcome(other) == finished._replace(run=other)
    assert read_outcome(changed) == Outcome(changed)
    stored = load(other.folder / 'run.json')
    assert (stored['condition'], stored['variant'], stored['seed']) == ('b', 'c', 0)
    assert sorted(path.name
                  for path in other.folder.iterdir()) == ['run.json', 'test_metrics.json', 'train.log']
    assert (run.folder / 'iter_3.pth').exists()


def test_reuse_runs__leaves_other_runs_alone(run, tmp_path):
    failing, working = tmp_path / 'failing.py', tmp_path / 'working.py'
    failing.write_text('raise OSError')
    working.write_text('from pathlib import Path; import sys\n'
                       '(Path(sys.argv[3]) / "test_metrics.json").write_text("{}")')
    copy = run._replace(folder=tmp_path / 'copy')
    failed, = train_runs([run], failing)
    assert reuse_runs([copy], tmp_path) == [] and not copy.folder.exists()

    # One that has started goes on by itself.
    list(train_runs([run], working))
    copy.folder.mkdir()
    (copy.folder / 'last_checkpoint').touch()
    assert reuse_runs([copy, run], tmp_path) == []
    with pytest.raises(FileNotFoundError, match='missing does not exist'):
        reuse_runs([copy], tmp_path / 'missing')


def test_train_runs__failure_has_the_last_line_of_the_log(run, tmp_path):
    trainer = tmp_path / 'trainer.py'
    trainer.write_text('print("a"); raise FloatingPointError("a loss is not finite")')
    outcome, = train_runs([run], trainer)
    log = run.folder / 'train.log'
    assert outcome.error == f'FloatingPointError: a loss is not finite (see {log})' and outcome.test is None
    assert read_outcome(run) == outcome

    # The next attempt adds to the log.
    list(train_runs([run], trainer))
    assert log.read_text().count('a loss is not finite') > 1
