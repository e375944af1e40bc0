"""Parameters and multiply-accumulates of a model, with and without its training-only parts.

Counted as in Table 12 of the ReMaX paper (arXiv 2306.17319), whose "FLOPs" are multiply-accumulates of
convolutions and matrix products. Norms, activations, softmaxes and resizing do not count.
"""
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from remax_mm.models.inference_copy import inference_copy

EXPANDED_PARTS = ('panoptic_head', )


class PartComplexity(NamedTuple):
    """One part of a model at inference: its dotted name, parameters and multiply-accumulates per image."""
    name: str
    parameters: int
    macs: int


class Complexity(NamedTuple):
    """Size and cost of a model.

    Attributes:
        training_parameters: Number of parameters in training.
        parameters: Number of parameters at inference.
        macs: Multiply-accumulates per image at inference.
        parts: The parts with parameters at inference. Operations outside of them are only in ``macs``.
    """
    training_parameters: int
    parameters: int
    macs: int
    parts: Tuple[PartComplexity, ...]


def count_parameters(module: nn.Module) -> int:
    """Number of parameters; a shared parameter counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(run: Callable[[], Any], parts: Dict[str, nn.Module]) -> Tuple[int, Dict[str, int]]:
    """Multiply-accumulates of convolutions and matrix products during ``run()``.

    Args:
        run: What to count.
        parts: Modules by any name, whose calls are also counted separately.

    Returns:
        The total, and the count of each of ``parts``.
    """
    counter = FlopCounterMode(display=False)
    macs = dict.fromkeys(parts, 0)
    handles = []
    for name, module in parts.items():

        # torch counts a multiply-accumulate as two operations.
        def enter(_module: nn.Module, _inputs: Any, name: str = name) -> None:
            macs[name] -= counter.get_total_flops() // 2

        def leave(_module: nn.Module, _inputs: Any, _outputs: Any, name: str = name) -> None:
            macs[name] += counter.get_total_flops() // 2

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]

    try:
        with torch.no_grad(), counter:
            run()
    finally:
        for handle in handles:
            handle.remove()
    return counter.get_total_flops() // 2, macs


def measure_complexity(model: nn.Module, size: Tuple[int, int]) -> Complexity:
    """Count parameters and multiply-accumulates of a detector.

    The network runs on fake tensors, so that large images need no memory and little time.

    Args:
        model: A detector with ``mode='tensor'``; unchanged.
        size: (height, width) of the normalized and padded image.

    Raises:
        ValueError: ``size`` is not two positive numbers.
    """
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f'Expected `size` to be a positive height and width, but got {size}')
    training_parameters = count_parameters(model)
    # torch's counter registers a hook on the gradient of every input, which fails for some tensors.
    model = inference_copy(model).requires_grad_(False)
    parts = _parts(model)

    # Fake tensors have a shape and a device, but no data.
    with FakeTensorMode(allow_non_fake_inputs=True):
        image = torch.empty(1, 3, *size)
        total, macs = count_macs(lambda: model(image, _blank_samples(image), mode='tensor'), parts)
    costs = tuple(PartComplexity(name, count_parameters(part), macs[name]) for name, part in parts.items())
    return Complexity(training_parameters, count_parameters(model), total, costs)


def measure_config(config: Config, size: Optional[Tuple[int, int]] = None) -> Complexity:
    """Like :func:`measure_complexity`, for the model of a config without weights.

    Args:
        config: The config.
        size: (height, width). None takes ``model.data_preprocessor.pad_size`` of the config.

    Raises:
        ValueError: neither ``size`` nor the config gives the size of an image.
    """
    if size is None:
        size = config.model.get('data_preprocessor', {}).get('pad_size')
    if size is None:
        raise ValueError('Expected `size` (height, width), because the config has no '
                         f'`model.data_preprocessor.pad_size`: {config.filename}')
    init_default_scope(config.get('default_scope', 'mmdet'))
    return measure_complexity(MODELS.build(config.model), size)


def format_complexity(complexity: Complexity) -> str:
    """A table, in billions of multiply-accumulates."""
    rows = [('part', 'parameters', 'GMACs')]
    rows += [(part.name, f'{part.parameters:,}', f'{part.macs / 1e9:.3f}') for part in complexity.parts]
    rows += [('whole, at inference', f'{complexity.parameters:,}', f'{complexity.macs / 1e9:.3f}'),
             ('whole, in training', f'{complexity.training_parameters:,}', '')]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return '\n'.join(f'{name:<{widths[0]}}  {parameters:>{widths[1]}}  {macs:>{widths[2]}}'.rstrip()
                     for name, parameters, macs in rows)


def _parts(model: nn.Module) -> Dict[str, nn.Module]:
    parts = {}
    for name, child in model.named_children():
        if name in EXPANDED_PARTS:
            parts.update({f'{name}.{inner}': module for inner, module in child.named_children()})
        else:
            parts[name] = child
    return {name: part for name, part in parts.items() if count_parameters(part) > 0}


def _blank_samples(image: Tensor) -> List[DetDataSample]:
    size = tuple(image.shape[-2:])
    keys = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    return [DetDataSample(metainfo=dict.fromkeys(keys, size)) for _ in image]
