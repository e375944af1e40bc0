"""Maps that are computed again in the backward pass: the same gradients from less memory."""
import copy
import inspect
import weakref
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.models.backbones.resnet import Bottleneck
from mmdet.registry import MODELS
from torch import nn
from torch.nn.modules._functions import SyncBatchNorm
from torch.utils.checkpoint import checkpoint

from remax_mm.models.backbones.convnext import ARCHITECTURES, ConvNeXtBlock, ConvNeXtSpec
from remax_mm.models.layers import (AxialBlock, BasicBlock, BottleneckBlock, ConvNormAct, DualPathLayer,
                                    LayerNorm2d, recompute, recompute_activations)
from remax_mm.models.layers.recomputation import Recipe, Recomputation


class ResidualAdd(nn.Module):
    """An addition in place, after which the norm's output is another map."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        out = self.norm(self.conv(x))
        out += x
        return F.relu(out)


class TwoUsers(nn.Module):
    """An activated map with three users."""

    def __init__(self):
        super().__init__()
        self.first = ConvNormAct(4, 4, 3)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(2))

    def forward(self, x):
        x = self.first(x)
        return self.convs[0](x) * x + self.convs[1](x)


MODULES = dict(
    gelu=lambda: nn.Sequential(ConvNormAct(4, 4, 3), ConvNormAct(4, 4)),
    relu=lambda: ConvModule(4, 4, 1, norm_cfg=dict(type='BN')),
    hard_swish=lambda: ConvModule(4, 4, 1, norm_cfg=dict(type='BN'), act_cfg=dict(type='HSwish')),
    gelu_alone=lambda: nn.Sequential(nn.GELU(), nn.Conv2d(4, 4, 1)),
    relu_alone=lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)),
    group_norm=lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 4, 1)),
    layer_norm=lambda: nn.Sequential(LayerNorm2d(4), nn.Conv2d(4, 4, 1)),
    norm_without_weights=lambda: nn.Sequential(nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 4, 1)),
    resnet=lambda: nn.Sequential(Bottleneck(4, 1), nn.Conv2d(4, 4, 1)),
    bottleneck=lambda: BottleneckBlock(4, 1),
    basic=lambda: BasicBlock(4, 1),
    axial=lambda: AxialBlock(4, 8),
    convnext=lambda: ConvNeXtBlock(4),
    residual_add=ResidualAdd,
    two_users=TwoUsers)


def _with_random_norms(module):
    for parameter in module.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1)
    return module


def _gradients(module, x, context):
    """Output, and gradients of the input and of the parameters."""
    module, x = copy.deepcopy(module), x.clone().requires_grad_()
    with context:
        output = module(x)
    output.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    return dict(output=output, x=x.grad, **gradients), dict(module.named_buffers())


def _assert_close(found, expected):
    """Up to rounding, relative to the largest value of all."""
    assert found.keys() == expected.keys()
    scale = max([value.abs().max().item() for value in expected.values()], default=0)
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 1e-12 * scale, name


@pytest.mark.parametrize('name', MODULES)
@pytest.mark.parametrize('training', [True, False])
def test_recompute_activations__same_gradients(name, training):
    torch.manual_seed(0)
    module = _with_random_norms(MODULES[name]()).train(training).double()
    x = torch.randn(2, 4, 5, 6).double()
    expected, buffers = _gradients(module, x, torch.enable_grad())
    found, found_buffers = _gradients(module, x, Recomputation())
    _assert_close(found, expected)
    assert all(torch.equal(found_buffers[key], value) for key, value in buffers.items())


@pytest.mark.parametrize('name', ['relu', 'sigmoid', 'softmax'])
def test_recomputation__outputs_without_users_are_freed(name):
    """Autograd keeps the outputs of these functions, and no backward pass frees them."""
    function = getattr(torch, name) if name != 'softmax' else partial(torch.softmax, dim=0)
    with Recomputation():
        output = function(torch.ones(3, requires_grad=True) * 2)
    reference = weakref.ref(output)
    del output
    assert reference() is None


class Kept(Recomputation):
    """Remembers what autograd keeps."""

    def __init__(self):
        super().__init__()
        self.all = []

    def _pack(self, tensor):
        self.all.append(super()._pack(tensor))
        return self.all[-1]

    def shapes(self):
        """Of the maps that are kept, each once."""
        tensors = {
            saved.value.data_ptr(): saved.value
            for saved in self.all if not isinstance(saved.value, Recipe)
        }
        return sorted(
            tuple(value.shape) for value in tensors.values() if value.ndim == 4 and value.shape[2] > 1)


@pytest.mark.parametrize('norm', ['BN', 'GN', 'SyncBN'])
@pytest.mark.parametrize('act', ['GELU', 'ReLU', 'HSwish', 'SiLU'])
def test_recomputation__keeps_the_outputs_of_convolutions(norm, act):
    cfgs = dict(norm_cfg=dict(type=norm) if norm != 'GN' else dict(type=norm, num_groups=1))
    widths = [3, 4, 5, 6]
    network = nn.Sequential(*(ConvNormAct(a, b, act_cfg=dict(type=act), **cfgs)
                              for a, b in zip(widths, widths[1:])))
    for module in network.modules():
        if hasattr(module, 'inplace'):
            module.inplace = act == 'ReLU'
    with Kept() as kept:
        network(torch.randn(2, 3, 5, 5))
    assert kept.shapes() == [(2, width, 5, 5) for width in widths]  # the image and three outputs


def test_recomputation__leaves_checkpointed_blocks_alone():
    block = BottleneckBlock(4, 1).double()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    with Kept() as kept:
        out = checkpoint(block, x, use_reentrant=False)
    assert kept.shapes() == [x.shape]
    out.sum().backward()
    plain, other = copy.deepcopy(block), x.detach().requires_grad_()
    plain.zero_grad()
    plain(other).sum().backward()
    _assert_close(dict(x=x.grad), dict(x=other.grad))


def test_recomputation__backward_twice():
    torch.manual_seed(0)
    module, x = MODULES['two_users'](), torch.randn(2, 4, 5, 5)
    with Recomputation():
        loss = module(x).square().sum()
    gradients = [torch.autograd.grad(loss, module.first.conv.weight, retain_graph=True)[0] for _ in range(2)]
    assert torch.equal(*gradients)


def test_recomputation__bfloat16():
    torch.manual_seed(0)
    module, x = _with_random_norms(MODULES['gelu']()), torch.randn(2, 4, 5, 5)
    results = []
    for context in (torch.enable_grad(), Recomputation()):
        with torch.autocast('cpu', torch.bfloat16):
            results.append(_gradients(module, x, context)[0])
    for name, value in results[0].items():
        scale = max(value.float().abs().max().item(), 1)
        assert (results[1][name].float() - value.float()).abs().max() <= 2**-7 * scale, name


def test_recompute_activations__only_with_gradients():
    with torch.no_grad():
        assert not isinstance(recompute_activations(), Recomputation)
    assert isinstance(recompute_activations(), Recomputation)


def test_synchronized_norm__order_of_its_saved_tensors():
    """The second pair is the mean and the inverse standard deviation of all processes."""
    source = ''.join(inspect.getsource(SyncBatchNorm.forward).split())
    assert 'self.save_for_backward(input,weight,mean,invstd,count_all' in source


# ---- recompute


class Counter(nn.Module):
    """A batch norm, dropout, and the number of calls."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.calls = nn.BatchNorm2d(4), nn.Dropout(0.5), 0

    def forward(self, x):
        self.calls += 1
        return self.drop(self.norm(x))


def test_recompute__updates_norms_once_and_repeats_the_random_numbers():
    x = torch.randn(2, 4, 3, 3)
    plain, repeated = Counter(), Counter()
    outputs, gradients = [], []
    for module, call in ((plain, plain), (repeated, lambda x: recompute(repeated, x, module=repeated))):
        torch.manual_seed(0)
        leaf = x.clone().requires_grad_()
        outputs.append(call(leaf))
        outputs[-1].square().sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*outputs) and torch.equal(*gradients)
    assert (plain.calls, repeated.calls) == (1, 2)
    for name, value in plain.named_buffers():
        assert torch.equal(repeated.get_buffer(name), value), name
    assert repeated.norm.momentum == plain.norm.momentum == 0.1


def test_recompute__once_in_eval_mode():
    module = Counter().eval()
    x = torch.randn(2, 4, 3, 3, requires_grad=True)
    recompute(module, x, module=module).sum().backward()
    assert module.calls == 1


# ---- with_cp

BACKBONES = dict(
    axial=dict(type='AxialResNet', num_blocks=(1, 1, 1, 1), channels=(8, 8, 8, 8)),
    convnext=dict(type='KMaXConvNeXt', arch='micro', drop_path_rate=0.5),
    mobilenet=dict(type='KMaXMobileNetV3', arch='small'),
    deeplab2=dict(type='DeepLab2ResNet'),
    stem=dict(type='StemResNet', depth=18),
    dual_path=dict(
        type='DualPathAxialResNet',
        num_blocks=(1, 1, 1, 1),
        channels=(8, 8, 8, 16),
        dual_path_channels=16,
        ffn_channels=8,
        memory_channels=16,
        num_slots=5))
FEATURES = [(8, 17), (16, 9), (16, 5), (16, 3)]  # channels and size
PARTS = dict(
    pixel_decoder=dict(type='KMaXPixelDecoder', in_channels=[8, 16, 16, 16], channels=(16, 8, 8, 8)),
    aspp=dict(type='ASPPSemanticHead', in_channels=[8, 16, 16, 16], num_classes=3, aspp_channels=8),
    simple=dict(type='SimpleSemanticHead', in_channels=[8, 16, 16, 16], num_classes=3, channels=8),
    stage=dict(type='StageSemanticHead', in_channels=16, num_classes=3, aspp_channels=8))


def _step(config, inputs, **options):
    """Loss, gradients, buffers, and number of kept bytes."""
    torch.manual_seed(0)
    module = MODELS.build(dict(config, **options)).double()
    module.train()
    with Kept() as kept:
        outputs = module(inputs)
    tensors = [outputs] if torch.is_tensor(outputs) else [
        part for output in outputs for part in ([output] if torch.is_tensor(output) else output)
    ]
    sum(tensor.square().mean() for tensor in tensors).backward()
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    weights = {parameter.data_ptr() for parameter in module.parameters()}
    maps = [saved.value for saved in kept.all if torch.is_tensor(saved.value)]
    sizes = {value.data_ptr(): value.nbytes for value in maps if value.data_ptr() not in weights}
    return gradients, dict(module.named_buffers()), sum(sizes.values())


@pytest.mark.parametrize('name', [*BACKBONES, *PARTS])
def test_with_cp__same_gradients_and_statistics_from_less_memory(name, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, 'micro', ConvNeXtSpec((1, 1, 2, 1), (4, 8, 8, 8)))
    torch.manual_seed(1)
    if name in BACKBONES:
        config, inputs = BACKBONES[name], torch.randn(2, 3, 33, 33).double()
    else:
        config, inputs = PARTS[name], [torch.randn(2, width, side, side).double() for width, side in FEATURES]
        inputs = inputs[-1] if name == 'stage' else inputs
    gradients, buffers, kept = _step(config, inputs)
    found, found_buffers, found_kept = _step(config, inputs, with_cp=True)
    _assert_close(found, gradients)
    _assert_close(found_buffers, buffers)
    assert found_kept < 0.9 * kept  # most of it is the stem here


def test_dual_path_attention__keeps_no_similarities():
    layer = DualPathLayer(8, 8, channels=16, ffn_channels=8)
    with Kept() as kept:
        layer(torch.randn(2, 8, 9, 9), torch.randn(2, 8, 7))
    similarities = {(8, 81, 7), (8, 7, 88)}
    assert not similarities & {
        tuple(saved.value.shape[1:])
        for saved in kept.all if torch.is_tensor(saved.value)
    }


def test_axial_attention__keeps_no_similarities():
    with Kept() as kept:
        MODULES['axial']()(torch.randn(1, 4, 9, 9))
    assert not any(saved.value.shape[-2:] == (9, 9) and saved.value.ndim == 4 and saved.value.shape[0] == 9
                   for saved in kept.all if torch.is_tensor(saved.value))
