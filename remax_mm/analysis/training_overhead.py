"""Time and memory that a change of a model costs in training, and a check that inference is the same."""
import copy
import statistics
import time
from itertools import cycle, zip_longest
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Tuple
from weakref import finalize

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from remax_mm.models.inference_copy import inference_copy

Step = Callable[[], Any]


class StepCost(NamedTuple):
    """Cost of a training step: seconds of each round, and peak memory in bytes."""
    seconds: List[float]
    peak_memory: int


class Overhead(NamedTuple):
    """Cost relative to another model: median over the rounds of the time ratio, and ratio of the peaks."""
    time: float
    memory: float


class InferenceDifference(NamedTuple):
    """Differences of two models at inference; empty, empty and 0 if they are the same network.

    Attributes:
        parameters: Names that only one model has, or that differ in shape.
        calls: Modules that only one model calls, or that are called in another order.
        outputs: Largest difference of the outputs with the same weights; NaN if their shapes differ.
    """
    parameters: List[str]
    calls: List[str]
    outputs: float


class TensorMemory(TorchDispatchMode):
    """Bytes of the live tensors that were created inside the context, and their peak, on any device.

    Temporary memory inside a kernel is not counted. Fake tensors count as if they had data.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: Dict[int, int] = {}

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        given = {tensor.untyped_storage()._cdata for tensor in tensors_in([args, kwargs])}
        for tensor in tensors_in(outputs):
            if tensor.untyped_storage()._cdata not in given:  # neither a view nor an in-place result
                self._track(tensor.untyped_storage())
        return outputs

    def _track(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata  # fake tensors have no `data_ptr`
        if key not in self._known:
            self._known[key] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self._known.pop(key)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors of nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(item)


def time_in_turns(steps: Mapping[str, Step], rounds: int, warmup: int = 2) -> Dict[str, List[float]]:
    """Seconds of each step in each round. Each round runs every step once, so that load affects all equally.

    Args:
        steps: Training steps by name.
        rounds: Rounds that are measured.
        warmup: Rounds before them.
    """
    seconds: Dict[str, List[float]] = {name: [] for name in steps}
    for _ in range(warmup + rounds):
        for name, step in steps.items():
            _synchronize()
            start = time.perf_counter()
            step()
            _synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {name: values[warmup:] for name, values in seconds.items()}


def peak_memory(step: Step) -> int:
    """Peak of the bytes that a step allocates: from the allocator on CUDA, otherwise of live tensors."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        _synchronize()
        return torch.cuda.max_memory_allocated() - before
    with TensorMemory() as memory:
        step()
    return memory.peak


def measure_steps(steps: Mapping[str, Step], rounds: int) -> Dict[str, StepCost]:
    """Time and memory of training steps."""
    seconds = time_in_turns(steps, rounds)
    return {name: StepCost(seconds[name], peak_memory(step)) for name, step in steps.items()}


def compare_costs(plain: StepCost, changed: StepCost) -> Overhead:
    """Cost of ``changed`` relative to ``plain``, both measured in the same rounds."""
    ratios = [new / old for new, old in zip(changed.seconds, plain.seconds)]
    return Overhead(statistics.median(ratios), changed.peak_memory / plain.peak_memory)


class OverheadReport(NamedTuple):
    """Costs of the training steps of a plain and a relaxed model, and differences at inference."""
    costs: Dict[str, StepCost]
    overhead: Overhead
    inference: InferenceDifference


def measure_overhead(plain: Config, relaxed: Config, rounds: int, num_batches: int) -> OverheadReport:
    """Time, memory and inference of a model with relaxations, compared with the same model without them.

    Args:
        plain: Config without relaxations. Its validation data is the input at inference, on the CPU.
        relaxed: Config with relaxations.
        rounds: Number of training steps of each model.
        num_batches: Number of batches, which are used in turn.

    Raises:
        ValueError: ``num_batches`` is below 1.
    """
    steps = {
        name: build_training_step(config, num_batches)
        for name, config in (('plain', plain), ('relaxed', relaxed))
    }
    costs = measure_steps(steps, rounds)
    batch = next(iter(Runner.build_dataloader(plain.val_dataloader, seed=0)))
    difference = compare_inference(MODELS.build(plain.model), MODELS.build(relaxed.model), batch)
    return OverheadReport(costs, compare_costs(costs['plain'], costs['relaxed']), difference)


def build_training_step(config: Config, num_batches: int, seed: int = 0) -> Step:
    """A training step of a config on batches of its training data, which are loaded in advance.

    Args:
        config: The config.
        num_batches: Number of batches, which are used in turn.
        seed: Random seed of weights and images.

    Raises:
        ValueError: ``num_batches`` is below 1.
    """
    if num_batches < 1:
        raise ValueError(f'Expected `num_batches` to be at least 1, but got {num_batches}')
    init_default_scope(config.get('default_scope', 'mmdet'))
    set_random_seed(seed)
    model = MODELS.build(config.model)
    model.init_weights()
    model = model.to(get_device()).train()
    optimizer = build_optim_wrapper(model, config.optim_wrapper)

    set_random_seed(seed)  # the same images for every model
    loader = iter(Runner.build_dataloader(config.train_dataloader, seed=seed))
    batches = cycle([next(loader) for _ in range(num_batches)])
    # The data preprocessor changes the samples.
    return lambda: model.train_step(copy.deepcopy(next(batches)), optimizer)


@torch.no_grad()
def compare_inference(plain: BaseDetector, changed: BaseDetector, batch: dict) -> InferenceDifference:
    """Compare two detectors at inference, both with the weights of ``changed``.

    Args:
        plain, changed: The detectors; unchanged.
        batch: Batch of a data loader; unchanged.
    """
    plain, changed = inference_copy(plain), inference_copy(changed)
    shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (plain, changed)]
    parameters = sorted(name for name, _ in set(shapes[0].items()) ^ set(shapes[1].items()))
    if parameters:
        return InferenceDifference(sorted(set(parameters)), [], float('nan'))

    plain.load_state_dict(changed.state_dict())
    (outputs, calls), (new_outputs, new_calls) = (_run_and_list_calls(m, batch) for m in (plain, changed))
    differing = [f'{a} | {b}' for a, b in zip_longest(calls, new_calls) if a != b]
    pairs = list(zip_longest(tensors_in(outputs), tensors_in(new_outputs)))
    if not pairs or any(a is None or b is None or a.shape != b.shape for a, b in pairs):
        return InferenceDifference([], differing, float('nan'))
    largest = max((a.double() - b.double()).abs().max().item() for a, b in pairs)
    return InferenceDifference([], differing, largest)


def _run_and_list_calls(model: BaseDetector, batch: dict) -> Tuple[Any, List[str]]:
    """Outputs of the network, and the names of the modules in the order of their calls."""
    calls: List[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
        for name, module in model.named_modules()
    ]
    try:
        return model(**model.data_preprocessor(copy.deepcopy(batch)), mode='tensor'), calls
    finally:
        for handle in handles:
            handle.remove()


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
