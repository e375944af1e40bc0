import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from remax_mm.analysis.complexity import (Complexity, PartComplexity, count_macs, count_parameters,
                                          format_complexity, measure_complexity, measure_config)
from remax_mm.models.inference_copy import inference_copy
from tests.conftest import REPOSITORY

# Table 12 of the ReMaX paper: parameters, GMACs counted there and on the reference code, at an input size.
TABLE_12 = {
    't': (18_628_000, 18.67, 640),
    's': (21_997_440, 20.77, 640),
    'm': (50_788_816, 67.16, 640),
    'b': (56_580_120, 292.05, 1281),
}


class _Head(nn.Module):
    """A decoder that is used at inference and a semantic head that is not."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Conv2d(4, 2, 1, bias=False)
        self.semantic_head = nn.Conv2d(4, 10, 1)
        self.slots = nn.Parameter(torch.zeros(3, 2))

    def forward(self, x):
        return torch.einsum('nd,bdhw->bnhw', self.slots, self.decoder(x))

    def drop_training_parts(self):
        self.semantic_head = None


class _Detector(nn.Module):

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4))
        self.panoptic_head = _Head()

    def forward(self, inputs, data_samples, mode):
        assert mode == 'tensor' and len(data_samples) == 1
        assert data_samples[0].batch_input_shape == tuple(inputs.shape[-2:])
        # mmdet calls this method directly, without hooks.
        return self.panoptic_head.forward(self.backbone(inputs))


def test_count_macs__by_hand():
    plain, depthwise = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8)
    linear, norm = nn.Linear(6, 4), nn.BatchNorm2d(8)
    image, other = torch.rand(2, 3, 5, 7), torch.rand(2, 6)

    def run():
        torch.einsum('bnd,bdhw->bnhw', torch.rand(2, 5, 8), depthwise(norm(plain(image)).relu()))
        linear(linear(other) @ torch.rand(4, 6))

    total, parts = count_macs(run, dict(plain=plain, depthwise=depthwise, linear=linear, norm=norm))
    by_hand = dict(plain=2 * 35 * 8 * 27, depthwise=2 * 12 * 8 * 25, linear=2 * (2 * 6 * 4), norm=0)
    assert parts == by_hand
    assert total == sum(by_hand.values()) + 2 * 5 * 8 * 12 + 2 * 4 * 6


def test_count_macs__removes_its_hooks_after_an_error():
    module = nn.Linear(2, 3)
    with pytest.raises(RuntimeError):
        count_macs(lambda: module(torch.rand(1, 5)), dict(module=module))
    assert not module._forward_hooks and not module._forward_pre_hooks


def test_count_parameters__counts_a_shared_one_once():
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3)
    second.weight = first.weight
    assert count_parameters(nn.ModuleList([first, second])) == 9 + 3


def test_inference_copy__does_not_change_the_model():
    model = _Detector().train()
    copied = inference_copy(model)
    assert copied.panoptic_head.semantic_head is None and not copied.backbone.training
    assert model.panoptic_head.semantic_head is not None and model.backbone.training


def test_measure_complexity__by_hand():
    model = _Detector()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    complexity = measure_complexity(model, (9, 13))

    backbone, decoder = 4 * 27 * 5 * 7, 2 * 4 * 5 * 7
    assert complexity == Complexity(
        training_parameters=112 + 8 + 8 + 50 + 6,
        parameters=112 + 8 + 8 + 6,
        macs=backbone + decoder + 3 * 2 * 5 * 7,
        parts=(PartComplexity('backbone', 120, backbone), PartComplexity('panoptic_head.decoder', 8,
                                                                         decoder)))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize('size', [(0, 5), (5, ), (3, 4, 5)])
def test_measure_complexity__bad_size(size):
    with pytest.raises(ValueError, match='positive height and width, but got'):
        measure_complexity(_Detector(), size)


def test_measure_config__needs_a_size():
    with pytest.raises(ValueError, match='Expected `size`'):
        measure_config(Config(dict(model=dict(type='ResNet'))))


def test_format_complexity():
    table = format_complexity(
        Complexity(2_500, 1_000, 3_000_000_000, (PartComplexity('backbone', 900, 10**9), )))
    assert [line.split() for line in table.splitlines()] == [
        ['part', 'parameters', 'GMACs'],
        ['backbone', '900', '1.000'],
        ['whole,', 'at', 'inference', '1,000', '3.000'],
        ['whole,', 'in', 'training', '2,500'],
    ]


@pytest.mark.parametrize('name', TABLE_12)
def test_measure_complexity__parameters_of_table_12(name):
    assert count_parameters(inference_copy(_meta_model(name))) == TABLE_12[name][0]


@pytest.mark.slow
@pytest.mark.parametrize('name', TABLE_12)
def test_measure_complexity__macs_of_table_12(name):
    _, expected, size = TABLE_12[name]
    complexity = measure_complexity(_meta_model(name).to_empty(device='cpu'), (size, size))
    assert complexity.macs / 1e9 == pytest.approx(expected, rel=1e-3)
    assert sum(part.macs for part in complexity.parts) == complexity.macs


def _config(name):
    path = sorted((REPOSITORY / 'configs' / 'remax').glob(f'remax-{name}_*.py'))[0]
    return Config.fromfile(str(path))


def _meta_model(name):
    config = _config(name)
    init_default_scope('mmdet')
    with torch.device('meta'):
        return MODELS.build(config.model)
