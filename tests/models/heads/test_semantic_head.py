"""The auxiliary semantic heads: against the public kMaX-DeepLab code, and their initial weights."""
import copy
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import nn

from remax_mm.models.heads.semantic_head import (ASPP, ASPPSemanticHead, SimpleSemanticHead,
                                                 StageSemanticHead, normalize_single_value, uniform_bias)
from tests.reference_weights import reference_state_dict

PREFIX = 'sem_seg_head.predictor._auxiliary_semantic_predictor.'
IN_CHANNELS = (256, 512, 1024, 2048)
# Our modules -> modules of the reference. Each has a convolution and, except the last one, a norm.
ASPP_NAMES = {
    'aspp.branches.0': '_aspp._aspp_conv0',
    'aspp.branches.1': '_aspp._aspp_conv1',
    'aspp.branches.2': '_aspp._aspp_conv2',
    'aspp.branches.3': '_aspp._aspp_conv3',
    'aspp.pool.project': '_aspp._aspp_pool',
    'aspp.project': '_aspp._proj_conv_bn_act',
    'fuse_res3.reduce': '_low_level_projection_os8',
    'fuse_res3.fuse.0': '_low_level_fusion_os8_conv0_bn_act',
    'fuse_res3.fuse.1': '_low_level_fusion_os8_conv1_bn_act',
    'fuse_res2.reduce': '_low_level_projection_os4',
    'fuse_res2.fuse.0': '_low_level_fusion_os4_conv0_bn_act',
    'fuse_res2.fuse.1': '_low_level_fusion_os4_conv1_bn_act',
    'head.0': 'conv_block_0',
    'head.1': 'conv_block_1',
    'classifier': 'final_conv',
}
SIMPLE_NAMES = {'head.0': '0', 'head.1': '1', 'classifier': '2'}


def _name_in_reference(key, modules):
    module = next(name for name in modules if key.startswith(name + '.'))
    rest = key[len(module) + 1:].replace('bn.', 'norm.')
    return f'{PREFIX}{modules[module]}.{rest}'


def _load_reference(head, modules):
    """Load the reference's weights into a head on the meta device, and return our key for each of theirs."""
    weights = head.state_dict()
    names = {key: _name_in_reference(key, modules) for key in weights}
    head.to_empty(device='cpu').load_state_dict(reference_state_dict(names, weights))
    return {theirs: ours for ours, theirs in names.items()}


@pytest.fixture(scope='module')
def features(reference_dir):
    inputs = np.load(reference_dir / 'head_inputs.npz')
    return [torch.from_numpy(inputs[name]) for name in ('res2', 'res3', 'res4', 'res5')]


@pytest.fixture(scope='module')
def reference_head():
    """A head with the reference's weights, which is not to be changed, and our key for each of theirs."""
    with torch.device('meta'):
        head = ASPPSemanticHead(IN_CHANNELS, num_classes=8).eval()
    return head, _load_reference(head, ASPP_NAMES)


def test_aspp_semantic_head__is_the_reference(reference_dir, features, reference_head):
    head, names = reference_head
    listed = json.loads((reference_dir / 'head_weights_spec.json').read_text())
    assert set(names) == {key for key in listed if key.startswith(PREFIX)}

    with torch.no_grad():
        logits = head(features)
    expected = torch.from_numpy(np.load(reference_dir / 'head_eval_preds.npz')['aux_semantic_decoder'])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


def test_aspp_semantic_head__trains_as_the_reference(reference_dir, features, reference_head):
    head, names = copy.deepcopy(reference_head[0]).train(), reference_head[1]
    head.aspp.dropout.p = 0.0
    step = json.loads((reference_dir / 'head_train_step.json').read_text())
    truth = np.load(reference_dir / 'loss_inputs.npz')
    target = torch.stack([_class_map(truth, image) for image in range(2)])

    losses = F.cross_entropy(head(features), target, ignore_index=-1, reduction='none').flatten(1)
    loss = (losses.sum(dim=1) / (losses != 0).sum(dim=1)).mean()
    loss.backward()

    assert loss.item() == pytest.approx(step['losses_float64']['loss_aux_semantic'], rel=1e-5)
    parameters, buffers = dict(head.named_parameters()), dict(head.named_buffers())
    for key, norm in step['grad_norm_of_parameters_float64'].items():
        if key in names:
            assert parameters[names[key]].grad.norm().item() == pytest.approx(norm, rel=1e-4), key
    for key, norm in step['running_stats_norm_after_one_step_float64'].items():
        if key in names:
            assert buffers[names[key]].norm().item() == pytest.approx(norm, rel=1e-5), key


def test_simple_semantic_head__is_the_reference(reference_dir, features):
    with torch.device('meta'):
        head = SimpleSemanticHead(IN_CHANNELS, num_classes=7).eval()
    _load_reference(head, SIMPLE_NAMES)
    with torch.no_grad():
        logits = head(features)
    expected = torch.from_numpy(np.load(reference_dir / 'head_eval_preds.npz')['aux_semantic_simple'])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


# Millions of parameters of ASPP and a 1x1 convolution to 133 classes, counted independently of this code.
@pytest.mark.parametrize('in_channels, millions', [(2048, 15.57), (1024, 7.97), (512, 4.17), (256, 2.27),
                                                   (128, 1.32)])
def test_stage_semantic_head__parameters(in_channels, millions):
    with torch.device('meta'):
        head = StageSemanticHead(in_channels, num_classes=133)
    assert sum(p.numel() for p in head.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_stage_semantic_head__initial_sigmoids_sum_to_one():
    head = StageSemanticHead(4, num_classes=133, aspp_channels=8, dilations=(1, 2, 3)).eval()
    logits = head(torch.zeros(1, 4, 3, 3))
    assert uniform_bias(133) == pytest.approx(-math.log(132))
    sums = torch.full((133, ), uniform_bias(133)).sigmoid().sum()
    torch.testing.assert_close(sums, torch.tensor(1.0))
    torch.testing.assert_close(head.classifier.conv.bias, torch.full((133, ), -math.log(132)))
    torch.testing.assert_close(logits.sigmoid().sum(dim=1), torch.ones(1, 3, 3), rtol=0, atol=0.05)


def test_stage_semantic_head__calibration_does_not_change_the_softmax():
    torch.manual_seed(1)
    calibrated = StageSemanticHead(4, 5, aspp_channels=8, dilations=(1, 2, 3)).eval()
    torch.manual_seed(1)
    plain = StageSemanticHead(4, 5, aspp_channels=8, dilations=(1, 2, 3), calibrated_bias=False).eval()
    assert plain.classifier.conv.bias.abs().max() == 0
    x = torch.randn(2, 4, 6, 7)
    torch.testing.assert_close(calibrated(x).softmax(dim=1), plain(x).softmax(dim=1))


def test_uniform_bias__one_class():
    assert uniform_bias(1) == 0


def test_normalize_single_value__running_statistics_for_a_batch_of_one():
    norm = torch.nn.BatchNorm2d(2, eps=0.0).train()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    norm.running_var.copy_(torch.tensor([4.0, 9.0]))
    norm.weight.data.copy_(torch.tensor([1.0, 10.0]))
    norm.bias.data.copy_(torch.tensor([0.0, 1.0]))
    value = normalize_single_value(norm, torch.tensor([5.0, 8.0]).view(1, 2, 1, 1))
    assert value.flatten().tolist() == pytest.approx([2.0, 21.0])  # (5 - 1) / 2, 10 (8 - 2) / 3 + 1
    assert norm.running_mean.tolist() == [1.0, 2.0]
    value.sum().backward()
    assert norm.weight.grad.tolist() == pytest.approx([2.0, 2.0])


def test_normalize_single_value__batch_statistics_for_a_larger_batch():
    norm = torch.nn.BatchNorm2d(1, eps=1e-12, momentum=0.5).train()
    value = normalize_single_value(norm, torch.tensor([1.0, 3.0]).view(2, 1, 1, 1))
    assert value.flatten().tolist() == pytest.approx([-1.0, 1.0])
    assert norm.running_mean.tolist() == pytest.approx([1.0])


def test_aspp__trains_with_a_single_image():
    aspp = ASPP(4, 8, dilations=(1, 2, 3)).train()
    aspp(torch.randn(1, 4, 5, 6)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in aspp.parameters())


def test_aspp__group_norm():
    aspp = ASPP(4, 8, dilations=(1, 2, 3), norm_cfg=dict(type='GN', num_groups=4)).train()
    assert aspp(torch.randn(1, 4, 5, 6)).shape == (1, 8, 5, 6)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in aspp.modules())


def test_aspp__initial_weights():
    aspp = ASPP(50, 64)
    for branch in aspp.branches:
        weight = branch.conv.weight
        std = math.sqrt(2 / 50)
        assert weight.abs().max() <= 2 * std
        # A normal distribution truncated at two standard deviations has 0.8796 of its standard deviation.
        assert weight.std().item() == pytest.approx(0.8796 * std, rel=0.05)


def test_semantic_heads__are_registered_and_reject_unknown_keys():
    widths = (3, 4, 5, 6)
    for cfg in (dict(type='ASPPSemanticHead', in_channels=widths, aspp_channels=4, low_level_channels=(2, 3)),
                dict(type='SimpleSemanticHead', in_channels=widths, channels=4)):
        head = MODELS.build(dict(num_classes=2, **cfg)).eval()
        sizes = (9, 5, 3, 2)
        maps = [torch.randn(1, width, size, size) for width, size in zip(widths, sizes)]
        size = 9 if cfg['type'] == 'ASPPSemanticHead' else 2
        assert head(maps).shape == (1, 2, size, size)
        with pytest.raises(TypeError, match='no_such_key'):
            MODELS.build(dict(num_classes=2, no_such_key=1, **cfg))


@pytest.mark.parametrize('cfg, number', [
    (dict(type='ASPPSemanticHead', in_channels=(3, 4, 5, 6), aspp_channels=4), 6 + 2 * 3 + 2),
    (dict(type='SimpleSemanticHead', in_channels=(6, ), channels=4), 2),
    (dict(type='StageSemanticHead', in_channels=6, aspp_channels=4), 6),
])
def test_semantic_heads__activation_of_the_config(cfg, number):
    # Activations: ASPP 6, each fusion with a low-level feature 3, each depthwise separable convolution 2.
    for act_cfg, kind in ((dict(type='GELU'), nn.GELU), (dict(type='ReLU'), nn.ReLU)):
        head = MODELS.build(dict(num_classes=2, act_cfg=act_cfg, **cfg))
        activations = [module for module in head.modules() if isinstance(module, (nn.GELU, nn.ReLU))]
        assert [type(module) for module in activations] == [kind] * number


def test_aspp_semantic_head__wrong_number_of_features():
    with pytest.raises(ValueError, match='res2 to res5.*but got .1, 2, 3.'):
        ASPPSemanticHead([1, 2, 3], num_classes=2)


def _class_map(truth, image):
    """(h, w) label of each pixel, -1 where void."""
    labels, masks = truth[f'gt{image}_labels'], truth[f'gt{image}_masks']
    target = torch.full(masks.shape[1:], -1)
    for label, mask in zip(labels, masks):
        if label >= 0:
            target[torch.from_numpy(mask > 0)] = int(label)
    return target
