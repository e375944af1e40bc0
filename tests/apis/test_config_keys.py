"""Misspelled keys of configs are errors with the nearest known key; own variables are not."""
import pytest
from mmengine.config import Config

from remax_mm.apis.config_keys import RENAMED_KEYS, check_config_keys
from remax_mm.apis.run_config import load_run_config

CORRECT = dict(
    default_scope='mmdet',
    model=dict(type='X'),
    train_cfg=dict(type='IterBasedTrainLoop', max_iters=1),
    train_pipeline=[],
    train_pipeline_stage2=[],
    num_classes=3,
    weak_pipeline=[],
    val_evaluator_full=dict(),
    default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='PQ'), early=dict()),
    custom_hooks=[
        dict(type='CheckClassesHook', priority='LOW'),
        dict(type='EMAHook', momentum=0.1, update_buffers=True),
        dict(type='mmdet.SetEpochInfoHook')
    ])


def test_check_config_keys__correct():
    check_config_keys(Config(CORRECT))
    check_config_keys(Config(dict()))
    check_config_keys(Config(dict(default_hooks=None, custom_hooks=None)))


@pytest.mark.parametrize('wrong, nearest', [
    ('trian_cfg', 'train_cfg'),
    ('traincfg', 'train_cfg'),
    ('resume_form', 'resume'),
    ('lode_from', 'load_from'),
    ('default_hook', 'default_hooks'),
    ('custom_hoks', 'custom_hooks'),
    ('optim_wraper', 'optim_wrapper'),
    ('val_dataloder', 'val_dataloader'),
    ('param_schedular', 'param_scheduler'),
    ('autoscale_lr', 'auto_scale_lr'),
    *RENAMED_KEYS.items(),
])
def test_check_config_keys__top_level(wrong, nearest):
    with pytest.raises(ValueError, match=f'but got `{wrong}`, did you mean `{nearest}`[?]$'):
        check_config_keys(Config(dict(CORRECT, **{wrong: dict()})))


@pytest.mark.parametrize(
    'hooks, message',
    [
        (dict(default_hooks=dict(checkpoints=dict(type='CheckpointHook'))),
         '`default_hooks.checkpoints`, did you mean `default_hooks.checkpoint`'),
        (dict(default_hooks=dict(checkpoint=dict(type='CheckpointHook', intervals=5))),
         '`default_hooks.checkpoint.intervals` of CheckpointHook, did you mean `interval`'),
        # The hook would pass it on to the first save.
        (dict(default_hooks=dict(checkpoint=dict(type='CheckpointHook', keep=5))),
         '`default_hooks.checkpoint.keep` of CheckpointHook'),
        (dict(custom_hooks=[dict(type='EMAHook', begin_itr=5)]),
         r'`custom_hooks\[0\].begin_itr` of EMAHook, did you mean `begin_iter`'),
        (dict(custom_hooks=[dict(type='CheckClassesHook', prioritty=5)]),
         r'`custom_hooks\[0\].prioritty` of CheckClassesHook, did you mean `priority`'),
    ])
def test_check_config_keys__hooks(hooks, message):
    with pytest.raises(ValueError, match=message):
        check_config_keys(Config({**CORRECT, **hooks}))


def test_check_config_keys__all_in_one_error():
    config = Config(dict(trian_cfg=1, resume_from=2, default_hooks=dict(loggers=dict(type='LoggerHook'))))
    with pytest.raises(ValueError, match='`trian_cfg`.*; `resume_from`.*; `default_hooks.loggers`'):
        check_config_keys(config)


def test_check_config_keys__unknown_hook_is_left_to_the_registry():
    check_config_keys(Config(dict(custom_hooks=[dict(type='NoSuchHook', x=1)])))


def test_load_run_config__checks_file_and_options(tmp_path):
    path = tmp_path / 'a.py'
    path.write_text('train_cfg = dict()')
    load_run_config(path, dict(load_from='x'))
    with pytest.raises(ValueError, match=f'{path}, but got `load_form`, did you mean `load_from`'):
        load_run_config(path, dict(load_form='x'))
