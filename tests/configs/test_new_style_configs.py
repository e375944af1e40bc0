"""The new-style configs are the same as their counterparts, and every tool takes classes instead of names."""
import importlib
import inspect
import runpy

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from remax_mm.apis.config_keys import check_config_keys
from remax_mm.apis.evaluation_config import evaluate_all_tasks, use_tiles, use_tta
from remax_mm.apis.run_config import use_mixed_precision
from tests.config_files import read_config
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / 'remax_mm' / 'configs'
COUNTERPARTS = {
    'kmax_mnv3_s_1xb8_1k_mini_129': 'kmax_mnv3-s_1xb8-1k_mini-129',
    'remax_mnv3_s_1xb8_1k_mini_129': 'remax_mnv3-s_1xb8-1k_mini-129',
}
NAMED = ('type', 'constructor')  # keys whose values are classes, or names of classes
RUN_KEYS = {*inspect.signature(Runner.__init__).parameters, 'tta_model', 'tta_pipeline', 'sync_bn'}


@pytest.fixture(autouse=True)
def _mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def _read(name):
    return Config.fromfile(FOLDER / f'{name}.py')


def _with_names(value):
    """A config whose classes are replaced with their names."""
    if isinstance(value, dict):
        return {
            key: str(item).split('.')[-1] if key in NAMED else _with_names(item)
            for key, item in value.items()
        }
    return [_with_names(item) for item in value] if isinstance(value, (list, tuple)) else value


def test_new_style_configs__all_have_a_counterpart():
    assert {path.stem for path in FOLDER.glob('*.py')} - {'__init__'} == set(COUNTERPARTS)


@pytest.mark.parametrize('name', COUNTERPARTS)
def test_new_style_config__equals_its_counterpart(name):
    ours, expected = _with_names(_read(name).to_dict()), _with_names(
        read_config(COUNTERPARTS[name]).to_dict())
    keys = RUN_KEYS & {*ours, *expected}
    assert {key: ours.get(key) for key in keys} == {key: expected.get(key) for key in keys}
    assert {'model', 'train_dataloader', 'optim_wrapper', 'default_hooks', 'tta_pipeline'} <= keys


def test_new_style_config__builds_the_same_model():
    ours, expected = (
        MODELS.build(config.model)
        for config in (_read('remax_mnv3_s_1xb8_1k_mini_129'), read_config('remax_mnv3-s_1xb8-1k_mini-129')))
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (ours, expected)]
    assert shapes[0] == shapes[1]


def test_new_style_config__is_a_python_module():
    for name in COUNTERPARTS:
        module = importlib.import_module(f'remax_mm.configs.{name}')
        assert module.model['type'].__name__ == 'MaskTransformer'


def test_new_style_config__is_a_base_of_other_configs(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text('from mmengine.config import read_base\n\n'
                    'with read_base():\n'
                    '    from remax_mm.configs.remax_mnv3_s_1xb8_1k_mini_129 import *\n\n'
                    'model.update(panoptic_head=dict(num_things_classes=3))\n')
    config = Config.fromfile(path)
    assert config.model.panoptic_head.num_things_classes == 3
    assert config.model.panoptic_head.remask.type.__name__ == 'ReMask'


def test_changes__of_classes():
    config = _read('remax_mnv3_s_1xb8_1k_mini_129')
    check_config_keys(config)
    assert use_mixed_precision(config).optim_wrapper.type == 'AmpOptimWrapper'
    assert use_tiles(config, 65).test_dataloader.dataset.pipeline[1].type.__name__ == 'LoadSegmentIds'

    # PQ is there already, as a class; a second use adds nothing.
    config = evaluate_all_tasks(evaluate_all_tasks(config), 'instances.json')
    names = [str(getattr(e['type'], '__name__', e['type'])) for e in config.test_evaluator]
    assert names == ['PanopticQualityMetric', 'PanopticInstanceAPMetric', 'PanopticSemanticIoUMetric']
    assert config.test_evaluator[1].ann_file == 'instances.json'

    with_views = _read('remax_mnv3_s_1xb8_1k_mini_129')
    assert with_views.pop('tta_pipeline') and with_views.pop('tta_model')
    for merged in (use_tta(config), use_tta(with_views)):
        steps = merged.test_dataloader.dataset.pipeline
        assert [str(getattr(step['type'], '__name__', step['type']))
                for step in steps] == ['LoadImageFromFile', 'Resize', 'LoadSegmentIds', 'TestTimeAug']
        assert type(MODELS.build(merged.model)).__name__ == 'PanopticTTAModel'


@pytest.mark.slow
def test_new_style_config__trains_and_is_tested_with_all_options(tmp_path):
    from remax_mm.datasets import write_mini_panoptic
    write_mini_panoptic(tmp_path / 'data', 4, 2, 65, 0)
    config = str(FOLDER / 'remax_mnv3_s_1xb8_1k_mini_129.py')
    loader = 'batch_size=2 {0}.num_workers=0 {0}.persistent_workers=False {0}.dataset.data_root={1}'
    options = ' '.join(f'{split}_dataloader.' + loader.format(f'{split}_dataloader', tmp_path / 'data')
                       for split in ('train', 'val', 'test')).split()
    options += ['visualizer.name=new_style']
    train = runpy.run_path(str(REPOSITORY / 'tools' / 'train.py'))['main']
    train([
        config, '--work-dir',
        str(tmp_path / 'work'), '--cfg-options', *options, 'train_cfg.max_iters=1', 'train_cfg.val_interval=1'
    ])
    checkpoint = str(tmp_path / 'work' / 'iter_1.pth')
    assert torch.load(checkpoint, weights_only=True)['meta']['iter'] == 1
    test = runpy.run_path(str(REPOSITORY / 'tools' / 'test.py'))['main']
    test([
        config, checkpoint, '--tta', '--all-tasks', '--out',
        str(tmp_path / 'metrics.json'), '--work-dir',
        str(tmp_path / 'work'), '--cfg-options', *options
    ])
    metrics = (tmp_path / 'metrics.json').read_text()
    assert 'coco_panoptic/PQ' in metrics and 'mIoU' in metrics


def test_new_style_config__dataset_of_the_class():
    config = _read('kmax_mnv3_s_1xb8_1k_mini_129').train_dataloader.dataset
    assert DATASETS.get('MiniPanopticMapDataset') is config.type
