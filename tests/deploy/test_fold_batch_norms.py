"""Folded models compute what they computed before, in float64."""
import copy

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from remax_mm.deploy.fold_batch_norms import fold_batch_norms
from remax_mm.models.inference_copy import inference_copy
from remax_mm.models.layers import ConvNormAct
from tests.conftest import REPOSITORY
from tests.random_statistics import randomize_norms
from tests.tiny_model import detector_config


def _ready(model):
    randomize_norms(model).double().eval()  # some of mmdet's models return None
    return model


def _assert_same_after_folding(model, *inputs):
    """Fold; return the report."""
    with torch.no_grad():
        expected = model(*inputs)
        report = fold_batch_norms(model, *inputs)
        torch.testing.assert_close(model(*inputs), expected, rtol=1e-10, atol=1e-10)
    assert report.max_difference <= 1e-10 * max(expected.abs().max().item(), 1)
    return report


@pytest.mark.parametrize('layer, norm, shape', [
    (nn.Conv1d(6, 8, 3, padding=1), nn.BatchNorm1d(8), (2, 6, 9)),
    (nn.Conv1d(6, 8, 1, bias=False), nn.SyncBatchNorm(8), (2, 6, 9)),
    (nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), (2, 6, 9, 7)),
    (nn.Conv2d(6, 8, 3, groups=2), nn.BatchNorm2d(8), (2, 6, 9, 7)),
    (nn.Conv2d(6, 6, 5, groups=6, padding=2), nn.BatchNorm2d(6), (2, 6, 9, 7)),
    (nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8, affine=False), (2, 6, 9, 7)),
    (nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4), (1, 2, 5, 5, 5)),
    (nn.Linear(6, 8), nn.BatchNorm1d(8), (5, 6)),
    (nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8, eps=0.1), (5, 6)),
])
def test_fold__norm_after_a_layer(layer, norm, shape):
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    model = nn.Sequential(layer, norm).double().eval()
    report = _assert_same_after_folding(model, torch.randn(shape, dtype=torch.float64))
    assert report.folded == ('1', ) and not report.kept
    assert isinstance(model[1], nn.Identity)


@pytest.mark.parametrize('norm, layer, shape', [
    (nn.BatchNorm1d(6), nn.Conv1d(6, 8, 1, bias=False), (2, 6, 9)),
    (nn.BatchNorm2d(6), nn.Conv2d(6, 8, 1, groups=2), (2, 6, 9, 7)),
    (nn.BatchNorm2d(6), nn.Conv2d(6, 8, 1, stride=2), (2, 6, 9, 7)),
    (nn.BatchNorm1d(6), nn.Linear(6, 8), (5, 6)),
])
def test_fold__norm_before_a_pointwise_layer(norm, layer, shape):
    model = _ready(nn.Sequential(norm, layer))
    assert _assert_same_after_folding(model, torch.randn(shape, dtype=torch.float64)).folded == ('0', )


def test_fold__norm_before_padding_stays():
    # The padding of a folded norm would be the shift instead of 0.
    model = _ready(nn.Sequential(nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3, padding=1)))
    report = _assert_same_after_folding(model, torch.randn(1, 6, 9, 7, dtype=torch.float64))
    assert not report.folded and 'shares a tensor' in report.kept['0']


def test_fold__linear_layer_on_another_axis_stays():
    # The norm acts on axis 1, the layer on the last axis, which has the same size.
    model = _ready(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)))
    report = _assert_same_after_folding(model, torch.randn(2, 6, 6, dtype=torch.float64))
    assert not report.folded and set(report.kept) == {'1'}


class _Crossed(nn.Module):
    """The order of definition and the names are not those of the forward pass."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm2 = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        self.conv2, self.norm1 = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))


def test_fold__follows_the_forward_pass():
    model = _ready(_Crossed())
    assert _assert_same_after_folding(model, torch.randn(1, 4, 9, 9,
                                                         dtype=torch.float64)).folded == ('norm2', 'norm1')


class _UsedTwice(nn.Module):

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.conv, self.norm, self.other = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        if self.how == 'sum':
            return self.norm(y) + y
        if self.how == 'output':
            return torch.stack([self.norm(y), y])
        if self.how == 'view':
            return self.norm(y.clamp(min=0))
        if self.how == 'in place':
            return self.norm(y.mul_(2))
        if self.how == 'two calls':
            return self.norm(y) + self.conv(x + 1)
        return self.norm(y) + self.other(y)


@pytest.mark.parametrize('how', ['sum', 'output', 'view', 'in place', 'two calls', 'two norms'])
def test_fold__shared_tensor_stays(how):
    model = _ready(_UsedTwice(how))
    report = _assert_same_after_folding(model, torch.randn(2, 4, 5, 5, dtype=torch.float64))
    assert not report.folded and 'norm' in report.kept
    if how != 'two norms':
        assert report.kept['other'] == 'the forward pass does not use it'


class _CalledTwice(nn.Module):

    def __init__(self):
        super().__init__()
        self.block = ConvNormAct(4, 4, 3)

    def forward(self, x):
        return self.block(self.block(x))


def test_fold__shared_block_and_shared_weight():
    model = _ready(_CalledTwice())
    assert _assert_same_after_folding(model, torch.randn(1, 4, 5, 5,
                                                         dtype=torch.float64)).folded == ('block.norm', )

    tied = nn.Sequential(ConvNormAct(4, 4), ConvNormAct(4, 4))
    tied[1].conv.weight = tied[0].conv.weight
    assert len(_assert_same_after_folding(_ready(tied), torch.randn(1, 4, 5, 5,
                                                                    dtype=torch.float64)).folded) == 2


class _Standardized(nn.Conv2d):

    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


def test_fold__layer_that_changes_its_weight_stays():
    model = _ready(nn.Sequential(_Standardized(4, 4, 1), nn.BatchNorm2d(4)))
    assert not _assert_same_after_folding(model, torch.randn(1, 4, 5, 5, dtype=torch.float64)).folded


def test_fold__statistics_of_the_batch_stay():
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).double().eval()
    report = _assert_same_after_folding(model, torch.randn(2, 4, 5, 5, dtype=torch.float64))
    assert report.kept == {'1': 'it uses the statistics of the batch'}


def test_fold__host_blocks():
    model = _ready(
        nn.Sequential(
            ConvModule(3, 8, 3, norm_cfg=dict(type='BN'), act_cfg=dict(type='HSwish')),
            ConvModule(8, 8, 3, groups=8, norm_cfg=dict(type='BN')),
            ConvModule(8, 8, 1, norm_cfg=dict(type='BN'), order=('act', 'norm', 'conv'))))
    assert len(_assert_same_after_folding(model, torch.randn(1, 3, 9, 9, dtype=torch.float64)).folded) == 3

    class Last(ResNet):

        def forward(self, x):
            return super().forward(x)[-1]

    resnet = _ready(Last(50, base_channels=4, stem_channels=4, deep_stem=True))
    norms = [name for name, module in resnet.named_modules() if isinstance(module, nn.BatchNorm2d)]
    report = _assert_same_after_folding(resnet, torch.randn(1, 3, 33, 33, dtype=torch.float64))
    assert len(norms) == 55 and report.folded == tuple(norms)


def test_fold__training_mode():
    with pytest.raises(ValueError, match='evaluation mode .* training mode'):
        fold_batch_norms(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), torch.randn(1, 3, 5, 5))


def test_fold__weights_that_are_not_finite():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval()
    nn.init.constant_(model[1].weight, float('nan'))
    with pytest.raises(ValueError, match='finite .* check the weights'):
        fold_batch_norms(model, torch.randn(1, 3, 5, 5))


class _FinalLogits(nn.Module):

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, images):
        final = self.detector(images, mode='tensor')[-1]
        return torch.cat([final.class_logits.flatten(), final.mask_logits.flatten()])


@pytest.mark.slow
@pytest.mark.parametrize('name', ['kmax', 'max_deeplab'])
def test_fold__all_norms_of_a_model(name):
    config = detector_config()
    if name == 'max_deeplab':
        path = REPOSITORY / 'configs' / 'mini' / 'max-deeplab-s_1xb8-1k_mini-129.py'
        config = Config.fromfile(path).model
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = _ready(_FinalLogits(inference_copy(MODELS.build(config))))
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = copy.deepcopy(model)
    image = torch.randn(1, 3, 65, 65, dtype=torch.float64)
    report = _assert_same_after_folding(model, image)
    assert not report.kept and len(report.folded) == len(norms) > 50
    assert str(report).startswith(f'{len(norms)} batch norms folded, largest difference ')
    # Another size, and several images
    images = torch.randn(2, 3, 33, 97, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), before(images), rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_fold__group_norms_stay():
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = _FinalLogits(
            inference_copy(MODELS.build(detector_config(norm_cfg=dict(type='GN', num_groups=4))))).double()
    report = _assert_same_after_folding(model.eval(), torch.randn(1, 3, 65, 65, dtype=torch.float64))
    assert report.folded and all(name.startswith('detector.backbone') for name in report.folded)
