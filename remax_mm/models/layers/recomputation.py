"""Less memory for training: maps that are cheap to compute are not kept, but computed again when needed.

Of ``act(norm(conv(x)))`` autograd keeps the output of the convolution, the normalized map and the activated
map. The last two follow from the first. Chen et al., Training Deep Nets with Sublinear Memory Cost
(arXiv 1604.06174), Sec. 4, propose this for batch norms and activations.
"""
import weakref
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Callable, ContextManager, Dict, Iterable, Iterator, List, Optional, Sequence, Union

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.checkpoint import checkpoint

from .compilation import is_compiling

NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
SAVE_INPUT = (nn.GELU, nn.SiLU, nn.Hardswish)
"""Activations whose backward pass needs their input."""
SAVE_OUTPUT = (nn.ReLU, )


class Recipe:
    """How to compute a map again.

    Args:
        function: gives the map. It has no side effects.
        source: argument of the function, a map that is kept, or the recipe of one that is not.
        output: the map.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], source: Union[Tensor, 'Recipe'],
                 output: Tensor) -> None:
        self._function = function
        self._source = source.detach() if isinstance(source, Tensor) else source
        self._version = output._version
        self._users = 0  # saved tensors that were replaced by this recipe and not asked for yet
        self._value: Optional[Tensor] = None

    def gives(self, tensor: Tensor, changes: int = 0) -> bool:
        """Whether a tensor, which was once the map, is still the map after some changes in place."""
        return tensor._version == self._version + changes

    def add_user(self) -> None:
        self._users += 1

    def use(self) -> Tensor:
        """The map, for one of the users. It is kept until the last of them has it."""
        self._users -= 1
        return self._compute()

    @torch.no_grad()
    def _compute(self) -> Tensor:
        value = self._value
        if value is None:
            source = self._source._compute() if isinstance(self._source, Recipe) else self._source
            value = self._function(source)
        self._value = value if self._users > 0 else None
        return value


class _Saved:
    """What autograd holds: a tensor, or the recipe for it."""
    __slots__ = ('value', '__weakref__')

    def __init__(self, value: Union[Tensor, Recipe]) -> None:
        self.value = value


class Recomputation:
    """Context manager: in its block, no output of a norm or an activation is kept for the backward pass.

    It holds for every module, also for those of mmdet, and needs no change of them. The gradients are the
    same but for rounding. A block under ``torch.utils.checkpoint`` keeps nothing anyway and is left alone.
    """

    def __init__(self) -> None:
        self._maps: Dict[int, 'weakref.ref[Tensor]'] = {}  # by storage; each has an attribute `recipe`
        self._recent: List['weakref.ref[_Saved]'] = []  # since the last norm or activation started
        self._stack = ExitStack()

    def __enter__(self) -> 'Recomputation':
        self._stack.enter_context(saved_tensors_hooks(self._pack, self._unpack))
        self._stack.callback(register_module_forward_pre_hook(self._before_module).remove)
        self._stack.callback(register_module_forward_hook(self._after_module).remove)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()
        self._maps.clear()

    def _pack(self, tensor: Tensor) -> _Saved:
        recipe = self._find(tensor)
        if recipe is not None:
            recipe.add_user()
        # Detached, or an output that no loss depends on would keep itself alive through its own graph node.
        saved = _Saved(tensor.detach() if recipe is None else recipe)
        self._recent.append(weakref.ref(saved))
        return saved

    @staticmethod
    def _unpack(saved: _Saved) -> Tensor:
        return saved.value.use() if isinstance(saved.value, Recipe) else saved.value

    def _find(self, tensor: Tensor) -> Optional[Recipe]:
        """The recipe of a tensor, None if there is none."""
        reference = self._maps.get(_address(tensor))
        output = None if reference is None else reference()
        if output is None or not _is_same_view(output, tensor):
            return None
        recipe: Recipe = output.recipe  # type: ignore[attr-defined]
        return recipe if recipe.gives(tensor) else None

    def _before_module(self, module: nn.Module, inputs: Sequence[Any]) -> None:
        if isinstance(module, (*NORMS, *SAVE_INPUT, *SAVE_OUTPUT)):
            self._recent.clear()

    def _after_module(self, module: nn.Module, inputs: Sequence[Any], output: Any) -> None:
        """Note how the output of a norm or an activation is computed."""
        if not isinstance(module, (*NORMS, *SAVE_INPUT, *SAVE_OUTPUT)):
            return
        recent = [saved for saved in (reference() for reference in self._recent) if saved is not None]
        # With another type, the input was converted by autocast, and the norm keeps its converted copy.
        # If the module saved nothing, it runs under a checkpoint.
        if not recent or not output.requires_grad or output.dtype != inputs[0].dtype:
            return
        in_place = inputs[0] is output
        source = getattr(inputs[0], 'recipe', None)
        if source is None or not source.gives(inputs[0], changes=int(in_place)):
            source = inputs[0]
        if isinstance(source, Tensor) and (in_place or isinstance(module, SAVE_OUTPUT)):
            return  # The input is not kept.
        function = _without_side_effects(module, output)
        if function is None:
            return
        recipe = output.recipe = Recipe(function, source, output)
        self._maps[_address(output)] = weakref.ref(output)

        # The module itself may have saved its output.
        for saved in recent:
            if isinstance(saved.value, Tensor) and self._find(saved.value) is recipe:
                recipe.add_user()
                saved.value = recipe


def _address(tensor: Tensor) -> int:
    """Of the storage. Tensors without data have one as well, but no `data_ptr`."""
    return tensor.untyped_storage()._cdata


def _is_same_view(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors with the same storage have the same elements."""
    return (first.shape == second.shape and first.stride() == second.stride()
            and first.storage_offset() == second.storage_offset())


def _without_side_effects(module: nn.Module, output: Tensor) -> Optional[Callable[[Tensor], Tensor]]:
    """What a norm or an activation computes, without a change of running statistics; None if not known.

    Args:
        output: of the module. Its node in the graph has the statistics of the batch.
    """
    if not (isinstance(module, _BatchNorm) and module.training):
        return module.forward
    # Names of autograd's nodes and of what they saved; SyncBatchNorm has a node of its own.
    node: Any = output.grad_fn
    if hasattr(node, '_saved_result1'):
        mean, inverse_std = node._saved_result1, node._saved_result2
    elif isinstance(module, nn.SyncBatchNorm) and len(getattr(node, 'saved_tensors', ())) == 5:
        _, _, mean, inverse_std, _ = node.saved_tensors
    else:
        return None

    def normalize(x: Tensor) -> Tensor:
        shape = (1, -1) + (1, ) * (x.ndim - 2)
        scale = inverse_std if module.weight is None else inverse_std * module.weight
        shift = -mean * scale if module.bias is None else module.bias - mean * scale
        return torch.addcmul(shift.view(shape), x, scale.view(shape)).to(x.dtype)

    return normalize


_keeps_activations = False


def recompute_activations(enabled: bool = True) -> ContextManager:
    """:class:`Recomputation` where gradients are computed. torch.compile decides by itself what it keeps.

    Args:
        enabled: if not, the block also keeps what :func:`recompute_cheap` would compute again.
    """
    if not torch.is_grad_enabled() or is_compiling():
        return nullcontext()
    return Recomputation() if enabled else _keep_activations()


@contextmanager
def _keep_activations() -> Iterator[None]:
    global _keeps_activations
    _keeps_activations, before = True, _keeps_activations
    try:
        yield
    finally:
        _keeps_activations = before


def keeps_activations() -> bool:
    """Whether this is in a block of :func:`recompute_activations` that is not enabled."""
    return _keeps_activations


def recompute_cheap(function: Callable[..., Any], *inputs: Any, module: nn.Module) -> Any:
    """:func:`recompute` by default, for functions that take much memory and little time."""
    return function(*inputs) if keeps_activations() else recompute(function, *inputs, module=module)


def recompute(function: Callable[..., Any], *inputs: Any, module: nn.Module) -> Any:
    """Call a function; in training, keep its inputs alone and call it again in the backward pass.

    ``torch.utils.checkpoint`` also repeats the update of batch norms. Here they are updated once.

    Args:
        function: takes the inputs.
        module: what the function belongs to, with its batch norms.
    """
    if not (module.training and torch.is_grad_enabled()) or is_compiling():
        return function(*inputs)
    is_repeated = False

    def run(*arguments: Any) -> Any:
        nonlocal is_repeated
        with _without_updates(module) if is_repeated else nullcontext():
            is_repeated = True
            return function(*arguments)

    return checkpoint(run, *inputs, use_reentrant=False)


@contextmanager
def _without_updates(module: nn.Module) -> Iterator[None]:
    """Batch norms of the module normalize as before, but do not update their running statistics."""
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    states = [(norm.momentum, norm.get_buffer('num_batches_tracked')) for norm in norms]
    for norm, (_, count) in zip(norms, states):
        norm.momentum, norm.num_batches_tracked = 0.0, count.clone()
    try:
        yield
    finally:
        for norm, state in zip(norms, states):
            norm.momentum, norm.num_batches_tracked = state


def run_blocks(blocks: Union[nn.Module, Iterable[nn.Module]], x: Any, with_cp: bool) -> Any:
    """Run modules in order, each on the output of the one before.

    Args:
        with_cp: whether training keeps the inputs of the modules alone, see :func:`recompute`.
    """
    for block in blocks:  # type: ignore[union-attr]  # a ModuleList or a Sequential, which nn.Module hides
        x = recompute(block, x, module=block) if with_cp else block(x)
    return x
