"""The configs of mmdet's own mask transformers: their differences from mmdet's, and a training step."""
from typing import Iterator

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

from tests.conftest import REPOSITORY
from tests.mask_former_config import drawn_batch, mmdet_samples

FOLDERS = [REPOSITORY / 'configs' / name for name in ('mask2former', 'mini')]
CONFIGS = {path.stem: path for folder in FOLDERS for path in sorted(folder.glob('*mask*former*.py'))}
RELAXED = [name for name in CONFIGS if name.startswith('remax-')]
INSTANCES = 'remax-mask2former_r50_8xb2-lsj-50e_coco'
MMDETS = {
    name: f'mmdet::{name.split("_")[0].replace("remax-", "")}/{name.replace("remax-", "")}.py'
    for name, path in CONFIGS.items() if path.parent.name == 'mask2former'
}


@pytest.fixture(autouse=True)
def _mmdet_scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def _mmdets(name: str) -> Config:
    """mmdet's own config of a model."""
    return Config.fromstring(f"_base_ = '{MMDETS[name]}'", '.py')


def _build(config: Config) -> torch.nn.Module:
    """The model on the meta device: shapes without numbers."""
    with torch.device('meta'):
        return MODELS.build(config.model)


@pytest.mark.parametrize('name', RELAXED)
def test_relaxed_config__differs_from_its_parent_in_the_relaxations_only(name):
    config = Config.fromfile(CONFIGS[name])
    parent = _mmdets(name) if name == INSTANCES else Config.fromfile(CONFIGS[name.replace('remax-', '')])
    head = config.model.panoptic_head
    assert head.type == 'ReMaX' + parent.model.panoptic_head.type
    head.type = parent.model.panoptic_head.type
    head.loss_cls.type = 'CrossEntropyLoss'
    assert head.pop('remask').type == 'ReMask' and head.pop('reclass') == dict(type='ReClass')
    assert head.pop('loss_sem').avg_non_ignore
    config.pop('custom_imports', None), parent.pop('custom_imports', None)
    assert config.to_dict() == parent.to_dict()


@pytest.mark.parametrize('name', [name for name in MMDETS if name not in RELAXED])
def test_plain_config__differs_from_mmdets_in_the_data_only(name):
    config, mmdets = Config.fromfile(CONFIGS[name]).to_dict(), _mmdets(name).to_dict()
    assert mmdets['train_dataloader']['dataset']['type'] == 'CocoPanopticDataset'
    for key in ('type', 'batch_augments', 'pad_mask', 'pad_seg'):
        config['model']['data_preprocessor'].pop(key, None)
        mmdets['model']['data_preprocessor'].pop(key, None)
    assert config['default_hooks']['visualization'].pop('backend_args') is None
    same = ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr', 'default_hooks')
    for key in same:
        assert config[key] == mmdets[key], key
    for loader in ('train_dataloader', 'val_dataloader'):
        ours, theirs = config[loader], mmdets[loader]
        steps = [[step['type'] for step in each['dataset'].pop('pipeline')] for each in (ours, theirs)]
        ground_truth = 'LoadPanopticMap' if loader == 'train_dataloader' else 'LoadSegmentIds'
        renamed = dict(LoadPanopticAnnotations=ground_truth, PackDetInputs='PackPanopticInputs')
        assert steps[0] == [renamed.get(step, step) for step in steps[1]]
        ours['dataset']['type'] = theirs['dataset']['type']
        assert ours == theirs
    assert config['test_dataloader'] == Config.fromfile(CONFIGS[name]).to_dict()['val_dataloader']


@pytest.mark.parametrize('name', [name for name in MMDETS if name in RELAXED])
def test_relaxed_config__loads_published_weights(name):
    """It has all parameters of mmdet's model, by name and shape, and those of the semantic head."""
    model = _build(Config.fromfile(CONFIGS[name]))
    mmdets, ours = _build(_mmdets(name)).state_dict(), model.state_dict()
    assert all(ours[key].shape == value.shape for key, value in mmdets.items())
    assert all(key.startswith('panoptic_head.remask.semantic_head.') for key in set(ours) - set(mmdets))
    assert model.panoptic_head.num_relaxed == (4 if 'maskformer' in name else 6)


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=[pytest.mark.slow] * (name in MMDETS)) for name in CONFIGS])
def test_config__trains_for_a_step(name):
    config = Config.fromfile(CONFIGS[name])
    config.model.backbone.pop('init_cfg', None)
    config.model.data_preprocessor.pop('batch_augments', None)
    config.model.train_cfg.num_points = 64
    model = MODELS.build(config.model).train()
    queries = model.panoptic_head.query_embed.weight
    before = queries.detach().clone()

    batch = mmdet_samples(drawn_batch()) if name == INSTANCES else drawn_batch()
    for sample in batch['data_samples']:
        if 'gt_segments' in sample:
            sample.gt_segments.labels[:2] += model.num_things_classes - 3  # stuff comes after things
    losses = model.train_step(batch, build_optim_wrapper(model, config.optim_wrapper))
    assert all(torch.isfinite(loss).all() for loss in losses.values())
    assert ('loss_sem' in losses) == (name in RELAXED)
    assert not torch.equal(queries, before)
