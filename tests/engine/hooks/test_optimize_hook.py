import logging
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import HOOKS, MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from remax_mm.apis.evaluation_config import optimize_before_test
from remax_mm.deploy.optimize import InferenceNetwork
from tests.tiny_model import detector_config


class _Wrapper(torch.nn.Module):
    """As DistributedDataParallel."""

    def __init__(self, module):
        super().__init__()
        self.module = module


@pytest.mark.parametrize('dtype, wrapped', [('float32', False), ('bfloat16', True)])
def test_optimize_hook__replaces_the_model(dtype, wrapped, monkeypatch):
    monkeypatch.setattr('remax_mm.engine.hooks.optimize_hook.is_model_wrapper',
                        lambda model: isinstance(model, _Wrapper))
    config = optimize_before_test(Config(dict(custom_hooks=[dict(type='Other')])), dtype)
    hook = HOOKS.build(config.custom_hooks[-1])
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(detector_config())
    runner = SimpleNamespace(model=_Wrapper(model) if wrapped else model, logger=logging.getLogger('test'))
    hook.before_test(runner)
    network = runner.model.panoptic_head
    assert isinstance(network, InferenceNetwork) and type(runner.model) is type(model)
    assert network.dtype == dict(float32=None, bfloat16=torch.bfloat16)[dtype]


def test_optimize_hook__unknown_type():
    with pytest.raises(ValueError, match="one of float32, bfloat16, float16, but got 'int8'"):
        HOOKS.build(dict(type='OptimizeHook', dtype='int8'))
