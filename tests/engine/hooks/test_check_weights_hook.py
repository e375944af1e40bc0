"""Checks that a checkpoint has all weights of the model."""
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import HOOKS
from mmengine.model import BaseTTAModel
from torch import nn

from remax_mm.engine.hooks.check_weights_hook import check_weights


class Head(nn.Module):
    """A layer and a norm for training and inference, and a layer for training only."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.both = nn.Sequential(nn.Linear(2, channels), nn.BatchNorm1d(channels))
        self.training_only = nn.Linear(2, 2)

    def test_step(self, data: dict) -> dict:  # required by BaseTTAModel
        return data

    def drop_training_parts(self) -> None:
        self.training_only = None


@pytest.mark.parametrize('left_out', ['training_only', 'num_batches_tracked', 'nothing'])
def test_check_weights__weights_that_may_be_missing(left_out):
    weights = {name: value for name, value in Head().state_dict().items() if left_out not in name}
    check_weights(Head(), dict(weights, not_in_the_model=torch.zeros(1)), 'a.pth')


def test_check_weights__missing():
    weights = Head().state_dict()
    del weights['both.1.running_mean']
    with pytest.raises(
            ValueError,
            match=r'Expected a.pth to have all 6 weights of the model, but 1 are missing '
            r'\(both.1.running_mean\) and 0 have'):
        check_weights(Head(), weights, 'a.pth')


def test_check_weights__another_shape():
    with pytest.raises(
            ValueError,
            match=r'0 are missing and 6 have another shape .both.0.weight \(4, 2\) '
            r'instead of \(3, 2\), .*, \.\.\.'):
        check_weights(Head(), Head(4).state_dict(), 'a.pth')


@pytest.mark.parametrize('value', [float('nan'), float('-inf')])
def test_check_weights__not_finite(value):
    weights = Head().state_dict()
    weights['training_only.bias'][0] = value
    check_weights(Head(), weights, 'a.pth')

    weights['both.1.running_var'][1] = value
    with pytest.raises(
            ValueError, match=r'finite weights, but 1 of 6 are NaN or infinite .both.1.running_var'):
        check_weights(Head(), weights, 'a.pth')


class Views(BaseTTAModel):

    def merge_preds(self, data_samples_list):
        return data_samples_list


@pytest.mark.parametrize('wrap', [lambda model: model, nn.DataParallel, Views])
@pytest.mark.parametrize('key', ['state_dict', None])
def test_check_weights_hook__wrapped_models(wrap, key):
    runner = SimpleNamespace(model=wrap(Head()), cfg=SimpleNamespace(load_from='b.pth'))
    hook = HOOKS.build(dict(type='CheckWeightsHook'))
    weights = Head().state_dict()
    hook.after_load_checkpoint(runner, {key: weights} if key else weights)
    del weights['both.0.bias']
    with pytest.raises(ValueError, match='b.pth'):
        hook.after_load_checkpoint(runner, {key: weights} if key else weights)
