"""Folding of batch norms into the layers beside them. Both are affine in evaluation mode.

Which layers are neighbors is observed during a forward pass, so it does not depend on names or on the order
of definition.
"""
import math
from collections import Counter
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import torch
from mmcv.cnn.bricks import wrappers
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from .fold_attention_norms import fold_attention_norms
from .folding import Layer, change_inputs, change_outputs, replace_module, scale_and_shift

LAYER_TYPES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, wrappers.Conv2d, wrappers.Conv3d, wrappers.Linear)
"""Exact types: a subclass may change its weight in the forward pass."""


class FoldReport(NamedTuple):
    """What :func:`fold_batch_norms` did.

    Attributes:
        folded: names of the norms that are gone.
        kept: names of the others, and the reason of each.
        max_difference: largest absolute difference between the outputs before and after.
    """
    folded: Tuple[str, ...]
    kept: Dict[str, str]
    max_difference: float

    def __str__(self) -> str:
        lines = [f'{len(self.folded)} batch norms folded, largest difference {self.max_difference:.1e}']
        lines += [f'kept {name}: {reason}' for name, reason in self.kept.items()]
        return '\n'.join(lines)


@torch.no_grad()
def fold_batch_norms(model: nn.Module, *inputs: Any) -> FoldReport:
    """Fold all batch norms of a model that algebra allows, in place.

    These are batch norms after a convolution or linear layer, before a linear layer or a 1x1 convolution, and
    on similarities and values in the attention of MaX-DeepLab and kMaX-DeepLab; also the norm on masks, whose
    scale is folded and whose shift remains. A norm stays if the tensor between it and its neighbor is used by
    something else, or if it normalizes with the statistics of the batch.

    Args:
        model: in evaluation mode.
        inputs: arguments of ``model`` for three forward passes; small images suffice, because the outputs of
            the layers are kept in memory for a while.

    Raises:
        ValueError: the model is in training mode, or its outputs are not finite.
    """
    if model.training:
        raise ValueError('Expected a model in evaluation mode to fold its batch norms, but it is in training '
                         'mode: call `eval()` first')
    before = model(*inputs)
    names = _norm_names(model)
    recorder = _Recorder(model)
    recorder.run(model, inputs)
    kept = {}
    for norm, name in names.items():
        reason = _fold(model, norm, recorder)
        if reason is not None:
            kept[name] = reason

    # The norms inside of attention need layers whose own norms are folded.
    fold_attention_norms(model)
    remaining = _norm_names(model)
    kept = {name: reason for name, reason in kept.items() if name in remaining.values()}
    folded = tuple(name for name in names.values() if name not in kept)
    return FoldReport(folded, kept, largest_difference(before, model(*inputs)))


class _Call(NamedTuple):
    """Ids of the input and of the output of a module, and their number of axes."""
    taken: int
    made: int
    ndim: int


class _Recorder(TorchFunctionMode):
    """Records the calls of layers and norms, and how often each tensor is used."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.calls: Dict[nn.Module, List[_Call]] = {}
        self.uses: Counter = Counter()
        self._makers: Dict[int, nn.Module] = {}
        self._alive: List[Any] = []
        self._watched = [m for m in model.modules() if isinstance(m, _BatchNorm) or type(m) in LAYER_TYPES]

    def run(self, model: nn.Module, inputs: Tuple[Any, ...]) -> None:
        """Record a forward pass."""
        handles = [module.register_forward_hook(self._record) for module in self._watched]
        try:
            with self:
                outputs = model(*inputs)
        finally:
            for handle in handles:
                handle.remove()
        self.uses.update(id(output) for output in _tensors(outputs))
        self._alive.clear()

    def _record(self, module: nn.Module, inputs: Tuple[Tensor, ...], output: Tensor) -> None:
        self._alive += [inputs[0], output]  # so that no two of them have the same id
        self.uses[id(output)] = 0  # an earlier tensor may have had this id
        self._makers[id(output)] = module
        self.calls.setdefault(module, []).append(_Call(id(inputs[0]), id(output), output.ndim))

    def __torch_function__(self, function: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        # Reading a shape or a type is no use.
        if _tensors(result):
            self.uses.update(id(tensor) for tensor in _tensors((args, kwargs)))
        return result

    def layer_before(self, norm: nn.Module) -> Optional[Layer]:
        """The layer whose outputs, all of them, are the inputs of ``norm`` and of nothing else."""
        taken = [call.taken for call in self.calls[norm]]
        makers = {self._makers.get(one) for one in taken}
        maker = makers.pop()
        if makers or maker is None or not self._only_users(self.calls[maker], taken):
            return None
        return maker if _acts_on_channels(maker, self.calls[maker]) else None

    def layer_after(self, norm: nn.Module) -> Optional[Layer]:
        """The layer whose inputs, all of them, are the outputs of ``norm``, if nothing else takes these."""
        for layer, calls in self.calls.items():
            if self._only_users(self.calls[norm], [call.taken for call in calls]):
                return layer if _acts_on_channels(layer, calls) and _is_pointwise(layer) else None
        return None

    def _only_users(self, makers: List[_Call], taken: List[int]) -> bool:
        made = [call.made for call in makers]
        return sorted(made) == sorted(taken) and all(self.uses[one] == 1 for one in made)


def _acts_on_channels(layer: nn.Module, calls: List[_Call]) -> bool:
    """Whether the second axis of its tensors, which a batch norm normalizes, has the layer's channels."""
    return type(layer) in LAYER_TYPES and all(call.ndim == layer.weight.ndim for call in calls)


def _is_pointwise(layer: Layer) -> bool:
    """Whether an output sees one pixel of the input and no padding."""
    if isinstance(layer, nn.Linear):
        return True
    return set(layer.kernel_size) == {1
                                      } and layer.padding in ((0, ) * len(layer.kernel_size), 'valid', 'same')


def _fold(model: nn.Module, norm: _BatchNorm, recorder: _Recorder) -> Optional[str]:
    """Fold a norm into the layer before or after it; if it stays, return why."""
    if norm.running_mean is None:
        return 'it uses the statistics of the batch'
    if norm not in recorder.calls:
        return 'the forward pass does not use it'
    before = recorder.layer_before(norm)
    after = recorder.layer_after(norm)
    if before is not None:
        change_outputs(before, *scale_and_shift(norm))
    elif after is not None:
        change_inputs(after, *scale_and_shift(norm))
    else:
        return 'no layer before or after it shares a tensor with it alone'
    replace_module(model, norm, nn.Identity())
    return None


def _norm_names(model: nn.Module) -> Dict[_BatchNorm, str]:
    return {module: name for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


def largest_difference(before: Any, after: Any) -> float:
    """Largest absolute difference of the tensors in two nested outputs.

    Raises:
        ValueError: a difference is not finite.
    """
    pairs = zip(_tensors(before), _tensors(after))
    difference = max(((a.double() - b.double()).abs().max().item() for a, b in pairs), default=0.0)
    if not math.isfinite(difference):
        raise ValueError(
            'Expected finite outputs of the model before and after folding, but got a difference '
            f'of {difference}: check the weights')
    return difference


def _tensors(outputs: Any) -> List[Tensor]:
    return [leaf for leaf in tree_flatten(outputs)[0] if isinstance(leaf, Tensor)]
