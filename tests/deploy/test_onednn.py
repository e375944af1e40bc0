"""Convolutions by oneDNN equal those of torch."""
import copy

import pytest
import torch
from mmcv.cnn.bricks import wrappers
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from torch import nn

from remax_mm.deploy import onednn
from remax_mm.deploy.inference_kmax import InferenceMaskPredictor
from remax_mm.deploy.inference_layers import InplaceGELU
from remax_mm.deploy.onednn import ACTIVATIONS, OneDNNConv, OneDNNMaskPredictor, can_use_onednn, use_onednn
from remax_mm.deploy.optimize import optimize_for_inference
from remax_mm.models.layers import ConvNormAct
from tests.random_statistics import randomize_norms
from tests.tiny_model import detector_config

pytestmark = pytest.mark.skipif(not can_use_onednn(nn.Linear(1, 1)), reason='torch without oneDNN')


@pytest.fixture(autouse=True)
def _inference():
    with torch.no_grad(), DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('act', [nn.Identity(), nn.ReLU(), InplaceGELU()])
@pytest.mark.parametrize('options', [
    dict(kernel_size=1),
    dict(kernel_size=1, stride=2, bias=False),
    dict(kernel_size=3, padding=1, groups=4),
    dict(kernel_size=(3, 5), padding=(0, 2), dilation=(2, 1), stride=(1, 2)),
    dict(kernel_size=5, padding=2, groups=8),
])
def test_onednn_conv__values_of_the_convolution(options, act, memory_format):
    conv = nn.Conv2d(8, 16, **options)
    found = OneDNNConv(conv, ACTIVATIONS[type(act)])
    # The second size needs other weights than the first, and the third those of the first again.
    for size in ((1, 8, 30, 41), (2, 8, 7, 9), (1, 8, 30, 41)):
        x = torch.randn(size).to(memory_format=memory_format)
        torch.testing.assert_close(found(x), act(conv(x)), rtol=1e-5, atol=1e-5)


def test_onednn_conv__one_axis():
    conv = nn.Conv1d(8, 12, 3, stride=2, padding=1, groups=2)
    found = OneDNNConv(conv, ACTIVATIONS[InplaceGELU])
    for length in (20, 33):
        x = torch.randn(2, 8, length)
        torch.testing.assert_close(found(x), nn.functional.gelu(conv(x)), rtol=1e-5, atol=1e-5)


def test_onednn_conv__is_copied_after_use():
    found = OneDNNConv(nn.Conv2d(4, 6, 1), ACTIVATIONS[nn.Identity])
    x = torch.randn(1, 4, 5, 5)
    expected = found(x)
    copied = copy.deepcopy(found)
    found.weight.zero_()
    assert copied.reordered is None and torch.equal(copied(x), expected)


def test_use_onednn__convolutions_with_their_activations():
    network = nn.Sequential(
        ConvNormAct(3, 8, 3, norm_cfg=None),  # a GELU that is not one of ACTIVATIONS: not in the convolution
        ConvNormAct(8, 8, norm_cfg=None, act_cfg=dict(type='ReLU')),
        ConvNormAct(8, 8),  # the norm is between convolution and activation
        nn.Conv2d(8, 8, 3, padding=1, padding_mode='reflect'),  # not supported
        nn.Conv2d(8, 8, 3, padding='same'),  # not supported
        wrappers.Conv2d(8, 4, 1)).eval()
    x = torch.randn(2, 3, 9, 11)
    expected = network(x)
    use_onednn(network)
    torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)
    gelu, relu, norm, reflect, same, wrapped = network
    assert (gelu.conv.activation[0], relu.conv.activation[0], norm.conv.activation[0]) == ('none', 'relu',
                                                                                           'none')
    assert isinstance(gelu.act, nn.GELU) and isinstance(relu.act, nn.Identity) and isinstance(
        norm.act, nn.GELU)
    assert type(reflect) is type(same) is nn.Conv2d and isinstance(wrapped, OneDNNConv)


@pytest.mark.parametrize('strip_pixels', [1, 40, 100, 10000])
def test_onednn_mask_predictor__masks_of_the_predictor(monkeypatch, strip_pixels):
    monkeypatch.setattr(onednn, 'STRIP_PIXELS', strip_pixels)
    detector = randomize_norms(MODELS.build(detector_config())).eval()
    predictor = optimize_for_inference(detector, dtype=torch.bfloat16).panoptic_head.head.predictor
    assert type(predictor) is InferenceMaskPredictor
    kernel = torch.randn(2, 6, predictor.mask_kernel.conv.out_channels)
    feature = torch.randn(2, predictor.pixel_head[0].conv.in_channels, 13, 9)
    expected = predictor.predict_masks(kernel, feature)
    found = OneDNNMaskPredictor(predictor).predict_masks(kernel, feature)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_can_use_onednn__float32_without_autocast(monkeypatch):
    network = nn.Linear(1, 1)
    assert can_use_onednn(network)
    assert not can_use_onednn(network, torch.bfloat16)
    assert not can_use_onednn(nn.Linear(1, 1, device='meta'))
    assert not can_use_onednn(nn.Linear(1, 1).double())
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    assert not can_use_onednn(network)
