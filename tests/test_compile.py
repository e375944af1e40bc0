"""torch.compile of training steps: the same numbers, and no graph break inside a network."""
import copy
import logging
import shutil
from collections import Counter
from typing import Any, Dict, List

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from tests.cuda.models import HEADS, MMDET_HEADS, assert_all_close, build_model, training_batch

OURS = [head for head in HEADS if head not in MMDET_HEADS]
if not hasattr(torch, 'compiler') or not hasattr(torch.compiler, 'is_compiling'):
    pytest.skip('needs torch 2.1 or later', allow_module_level=True)


@pytest.fixture(autouse=True)
def _new_compiler(monkeypatch):
    """No compiled code of another test, no trace for pytest to collect, and a scope for registries."""
    monkeypatch.setattr(logging.getLogger('torch.__trace'), 'propagate', False)
    torch._dynamo.reset()
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield
    torch._dynamo.reset()


def _build(head: str) -> nn.Module:
    with DefaultScope.overwrite_default_scope('mmdet'):
        return build_model(head)


def _step(model: nn.Module) -> Dict[str, Tensor]:
    """Losses and gradients of a step that changes no weight."""
    wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.0)))
    gradients: Dict[str, Tensor] = {}
    zero_grad = wrapper.zero_grad

    def keep_gradients(**options: Any) -> None:
        gradients.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        zero_grad(**options)

    wrapper.zero_grad = keep_gradients
    torch.manual_seed(1)
    losses = model.train_step(training_batch(model), wrapper)
    return {**{name: loss.detach() for name, loss in losses.items()}, **gradients}


def _assert_same_steps(head: str, backend: str, rtol: float, atol: float) -> Counter:
    """Compare two steps, since the second one runs what the first one compiled.

    Returns:
        The reasons of the graph breaks.
    """
    model = _build(head)
    expected_model = copy.deepcopy(model)
    torch._dynamo.utils.counters.clear()
    model.train_step = torch.compile(model.train_step, backend=backend)  # as mmengine's runner does
    for _ in range(2):
        expected, found = _step(expected_model), _step(model)
        assert_all_close(found, expected, rtol, atol)
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] > 3
    return Counter(torch._dynamo.utils.counters['graph_break'])


def _unexpected(breaks: Counter) -> List[str]:
    """Graph breaks other than those of `not_compiled`, the backward pass and the optimizer."""
    known = ('torch.compiler.disable', 'function `disable`', 'Tensor.backward()',
             'torch._dynamo.graph_break()', 'function `Optimizer.')
    return [reason for reason in breaks if not any(part in reason for part in known)]


@pytest.mark.slow
@pytest.mark.parametrize('head', HEADS)
def test_train_step__eager_backend(head):
    breaks = _assert_same_steps(head, 'eager', 1e-5, 1e-6)
    if head in OURS:
        assert not _unexpected(breaks)


@pytest.mark.slow
@pytest.mark.parametrize('head', HEADS)
def test_train_step__aot_eager_backend(head):
    """Its backward graphs may compute some values again, in another order."""
    _assert_same_steps(head, 'aot_eager', 1e-4, 1e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='inductor needs the C++ compiler g++')
@pytest.mark.parametrize('head', OURS)
def test_train_step__inductor(head):
    _assert_same_steps(head, 'inductor', 1e-3, 1e-4)


@pytest.mark.parametrize(
    'head', [pytest.param(head, marks=[] if head == 'ReMaX' else pytest.mark.slow) for head in OURS])
def test_networks__one_graph_each(head):
    """`fullgraph` makes each graph break an error."""
    model = _build(head)
    data = model.data_preprocessor(training_batch(model), training=True)

    def compiled(function: Any) -> Any:
        return torch.compile(function, backend='eager', fullgraph=True)

    features = compiled(model.extract_feat)(data['inputs'])
    decoded = compiled(model.panoptic_head.decode)(features)
    size = model.panoptic_head.mask_shape(decoded)[1:]
    sem_seg = torch.zeros(2, *size, dtype=torch.int64)
    predictions = compiled(model.panoptic_head.predict_masks)(decoded, sem_seg)
    if model.panoptic_head.semantic_head is not None:
        semantic_features = model.panoptic_head.semantic_features(features)
        assert compiled(model.panoptic_head.semantic_head)(semantic_features).requires_grad
    assert predictions[-1].mask_logits.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize('head', MMDET_HEADS)
def test_networks__backbone_and_pixel_decoder_of_mmdets_heads(head):
    model = _build(head)
    data = model.data_preprocessor(training_batch(model), training=True)
    features = torch.compile(model.extract_feat, backend='eager', fullgraph=True)(data['inputs'])
    assert features[-1].requires_grad
