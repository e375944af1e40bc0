"""Options of a run change a copy of its config."""
import copy

import pytest

from remax_mm.apis.evaluation_config import (draw_predictions, evaluate_all_tasks, format_only, load_weights,
                                             use_tiles, use_tta)
from remax_mm.apis.run_config import (dataset_config, load_config, load_run_config, loads_annotation,
                                      resume_training, scale_learning_rate, use_mixed_precision)
from tests.color_config import TRAINING_OPTIONS, color_config
from tests.conftest import REPOSITORY

MINI = REPOSITORY / 'configs' / 'mini' / 'kmax_mnv3-s_1xb8-1k_mini-129.py'


def test_load_config__file_or_config_with_overrides():
    config = load_config(MINI, {'model.test_cfg.instance_on': True})
    assert config.model.test_cfg.instance_on
    changed = load_config(config, {'model.test_cfg.instance_on': False})
    assert config.model.test_cfg.instance_on and not changed.model.test_cfg.instance_on
    with pytest.raises(FileNotFoundError, match='none.py'):
        load_config('none.py')


def test_load_run_config__work_dir():
    assert load_run_config(MINI).work_dir == f'work_dirs/{MINI.stem}'
    assert load_run_config(MINI, dict(work_dir='kept')).work_dir == 'kept'
    config = load_run_config(MINI, dict(work_dir='kept'), work_dir='given', launcher='slurm')
    assert (config.work_dir, config.launcher) == ('given', 'slurm')


@pytest.mark.parametrize('change', [
    use_mixed_precision,
    scale_learning_rate,
    resume_training,
    lambda config: load_weights(config, 'http://host/a.pth'),
    evaluate_all_tasks,
    lambda config: format_only(config, 'out'),
    use_tta,
    lambda config: use_tiles(config, 65),
    lambda config: draw_predictions(config, show=True),
])
def test_changes__leave_their_input_unchanged(change):
    config = color_config(**TRAINING_OPTIONS)
    before = copy.deepcopy(config.to_dict())
    changed = change(config)
    assert config.to_dict() == before != changed.to_dict()


def test_use_mixed_precision__keeps_the_other_options():
    config = use_mixed_precision(
        color_config(optim_wrapper=dict(clip_grad=dict(max_norm=1), loss_scale=512.)))
    assert config.optim_wrapper == dict(type='AmpOptimWrapper', clip_grad=dict(max_norm=1), loss_scale=512.)
    config = use_mixed_precision(color_config(optim_wrapper=dict(type='AmpOptimWrapper')), 'bfloat16')
    assert config.optim_wrapper == dict(
        type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(enabled=False))
    assert use_mixed_precision(color_config(**TRAINING_OPTIONS),
                               'float16').optim_wrapper.loss_scale == 'dynamic'
    with pytest.raises(ValueError, match='optim_wrapper.type` to be OptimWrapper for --amp, but got Other'):
        use_mixed_precision(color_config(optim_wrapper=dict(type='Other')))


def test_scale_learning_rate__needs_a_base_batch_size():
    assert scale_learning_rate(color_config(**TRAINING_OPTIONS)).auto_scale_lr == dict(
        enable=True, base_batch_size=64)
    for options in ({}, dict(auto_scale_lr=dict(enable=False))):
        with pytest.raises(ValueError, match='auto_scale_lr.base_batch_size'):
            scale_learning_rate(color_config(**options))


def test_resume_training__latest_or_given(tmp_path):
    config = resume_training(color_config(load_from='weights.pth'))
    assert config.resume is True and config.load_from is None
    (tmp_path / 'iter_2.pth').touch()
    assert resume_training(color_config(),
                           str(tmp_path / 'iter_2.pth')).load_from == str(tmp_path / 'iter_2.pth')
    with pytest.raises(FileNotFoundError, match='none.pth'):
        resume_training(color_config(), 'none.pth')


def test_dataset_config__of_a_split_without_wrappers():
    config = color_config(val_dataloader=dict(dataset=dict(type='Other')))
    assert dataset_config(config).type == 'CocoPanopticMapDataset'
    assert dataset_config(config, 'val').type == 'Other'


@pytest.mark.parametrize('step, expected', [('LoadPanopticMap', True), ('mmdet.LoadAnnotations', True),
                                            ('LoadImageStrict', False), ('mmdet.LoadImageFromFile', False),
                                            ('Resize', False)])
def test_loads_annotation__by_the_name_of_the_step(step, expected):
    assert loads_annotation(dict(type=step)) == expected
