import copy

import pytest
import torch
from mmdet.registry import PARAM_SCHEDULERS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from remax_mm.engine.optimizers import KernelDecayOptimWrapperConstructor, group_parameters

CONFIGS = ('remax/remax-b_r50_8xb8-50k_coco-1281', '_base_/schedules/adamw_poly')


class _Model(nn.Module):

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.backbone_neck = nn.Conv1d(4, 4, 1, bias=False)
        self.norm = nn.LayerNorm((4, 4))
        self.attention = nn.MultiheadAttention(4, 1)
        self.slots = nn.Embedding(5, 4)
        self.cluster_centers = nn.Parameter(torch.zeros(4, 5))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.shared = self.backbone_neck
        self.gamma = nn.Parameter(torch.ones(4))


def _settings(groups, model):
    """Learning rate and decay by parameter name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: (group['lr'], group['weight_decay']) for group in groups for p in group['params']}


def _config(repository, name):
    return Config.fromfile(repository / 'configs' / f'{name}.py')


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmdet')


@pytest.fixture
def repository(request):
    return request.config.rootpath


def test_group_parameters__decay_and_learning_rate_of_each_parameter():
    model = _Model()
    groups = group_parameters(model, 1., 0.5, {'backbone': 0.1})
    assert _settings(groups, model) == {
        'backbone.0.weight': (0.1, 0.5),
        'backbone.0.bias': (0.1, 0.),
        'backbone.1.weight': (0.1, 0.),
        'backbone.1.bias': (0.1, 0.),
        'backbone_neck.weight': (1., 0.5),
        'attention.in_proj_weight': (1., 0.5),
        'attention.in_proj_bias': (1., 0.),
        'attention.out_proj.weight': (1., 0.5),
        'attention.out_proj.bias': (1., 0.),
        'norm.bias': (1., 0.),
        'norm.weight': (1., 0.),
        'slots.weight': (1., 0.),
        'cluster_centers': (1., 0.),
        'gamma': (1., 0.),
    }
    assert len(groups) == 4 and groups[0]['lr'] == 1.
    assert sum(len(group['params'])
               for group in groups) == 14  # the shared layer once, the frozen layer not at all


def test_group_parameters__longest_key_and_whole_names():
    model = _Model()
    settings = _settings(group_parameters(model, 1., 0., {'backbone': 0.1, 'backbone.1': 0.3}), model)
    assert settings['backbone.0.weight'][0] == 0.1 and settings['backbone.1.weight'][0] == 0.3
    with pytest.raises(ValueError, match='back'):
        group_parameters(model, 1., 0., {'back': 0.1})


def test_constructor__unknown_keys():
    optimizer = dict(type='AdamW', lr=1., weight_decay=0.1)
    with pytest.raises(ValueError, match='custom_keys'):
        KernelDecayOptimWrapperConstructor(dict(optimizer=optimizer), dict(custom_keys={}))
    with pytest.raises(ValueError, match='weight_decay'):
        KernelDecayOptimWrapperConstructor(dict(optimizer=dict(type='AdamW', lr=1.)))


@pytest.mark.parametrize('name', CONFIGS)
def test_constructor__from_configs(repository, name):
    model, cfg = _Model(), _config(repository, name)
    optimizer = cfg.optim_wrapper.optimizer
    wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
    assert isinstance(wrapper.optimizer, torch.optim.AdamW) and len(wrapper.optimizer.param_groups) == 4
    settings = _settings(wrapper.optimizer.param_groups, model)
    assert settings['backbone.0.weight'] == (pytest.approx(optimizer.lr / 10), optimizer.weight_decay)
    assert settings['norm.weight'] == (optimizer.lr, 0.)
    assert wrapper.param_groups[0]['eps'] == 1e-7
    assert wrapper.get_lr()['base_lr'] == [optimizer.lr]


def _rates(cfg, steps):
    """Learning rates of the base group and of the backbone over the first steps."""
    wrapper = build_optim_wrapper(_Model(), copy.deepcopy(cfg.optim_wrapper))
    schedulers = [PARAM_SCHEDULERS.build(dict(item, optimizer=wrapper)) for item in cfg.param_scheduler]
    rates = []
    for _ in range(steps):
        rates.append((wrapper.param_groups[0]['lr'], wrapper.optimizer.param_groups[-1]['lr']))
        for scheduler in schedulers:
            scheduler.step()
    return rates


def test_schedule__remax(repository):
    cfg = _config(repository, CONFIGS[0])
    assert cfg.train_cfg.max_iters == 50000
    rates = _rates(cfg, 5002)
    assert rates[0][0] == pytest.approx(6e-3 / 5000)
    assert rates[2500][0] == pytest.approx(3e-3, rel=1e-3)
    assert rates[5000] == rates[5001] == (pytest.approx(6e-3), pytest.approx(6e-4))

    # The learning rate decay, 1000 times faster.
    steps = cfg.param_scheduler[1]
    assert steps.milestones == [42500, 47500]
    cfg.param_scheduler = [dict(steps, milestones=[42, 47])]
    factors = [rate / 6e-3 for rate, _ in _rates(cfg, 50)]
    assert factors == pytest.approx([1] * 42 + [0.1] * 5 + [0.01] * 3)


def test_schedule__kmax(repository):
    cfg = _config(repository, CONFIGS[1])
    assert cfg.train_cfg.max_iters == 150000
    rates = _rates(cfg, 6001)
    for step in (5000, 5432, 6000):
        expected = 5e-4 * (1 - step / 150000)**0.9
        assert rates[step] == (pytest.approx(expected, rel=1e-4), pytest.approx(expected / 10, rel=1e-4))
    assert rates[2500][0] == pytest.approx(2.5e-4 * (1 - 2500 / 150000)**0.9, rel=1e-3)
