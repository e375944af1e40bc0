"""Memory that a training needs, computed without a GPU and without the time of a training step.

A step runs on fake tensors, which have a shape but no data (``torch._subclasses.fake_tensor``), so that a
batch of any size takes seconds. Activation checkpointing and mixed precision count as in a training.
"""
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from remax_mm.models.layers import recompute_activations
from remax_mm.models.task_modules import PQSimilarityAssigner
from .step_cost import draw_batch
from .training_overhead import TensorMemory


class MemoryEstimate(NamedTuple):
    """Bytes of a training.

    Attributes:
        weights: Parameters and buffers.
        optimizer: State of the optimizer.
        step: Peak of what a step adds: images, what the backward pass needs, and gradients.
    """
    weights: int
    optimizer: int
    step: int

    @property
    def total(self) -> int:
        """Peak of the training."""
        return sum(self)


class _FirstSlots(PQSimilarityAssigner):
    """Matches each segment with the slot of the same number, since fake tensors have no similarities."""

    def find_pairs(self, tables: Tensor) -> List[np.ndarray]:
        num_images, num_segments, columns = tables.shape
        index = np.arange(min(num_segments, columns // 2))
        return [np.stack([np.full_like(index, image), index, index]) for image in range(num_images)]


def estimate_memory(config: Config,
                    batch_size: int,
                    size: Tuple[int, int],
                    num_segments: int = 20) -> MemoryEstimate:
    """Memory of a training on one device.

    Not included are the caches of the allocator, the workspaces of kernels, such as those of cuDNN, and what
    hooks keep, such as the averaged weights of EMAHook.

    Args:
        config: Of a detector whose head has a ``criterion``: kMaX-DeepLab, ReMaX or MaX-DeepLab.
        batch_size: Images per device.
        size: (height, width) of the images, multiples of 32 plus 1.
        num_segments: Segments of an image.

    Raises:
        ValueError: the head has no ``criterion``, or ``batch_size`` is not positive.
    """
    if batch_size < 1:
        raise ValueError(f'Expected `batch_size` to be positive, but got {batch_size}')
    init_default_scope(config.get('default_scope', 'mmdet'))
    with torch.device('meta'):
        model = MODELS.build(config.model).train()
    head = model.panoptic_head
    if getattr(head, 'criterion', None) is None:
        raise ValueError('Expected a model whose head has a `criterion`, such as KMaXHead, but got a '
                         f'{type(head).__name__}: {config.filename}')
    head.criterion.assigner = _FirstSlots()
    classes = head.num_things_classes, head.num_stuff_classes
    batch = MODELS.build(config.model.data_preprocessor)(
        draw_batch(batch_size, size, num_segments, classes, seed=0), training=True)
    mixed_precision = config.optim_wrapper.type == 'AmpOptimWrapper'

    with FakeTensorMode(allow_non_fake_inputs=True):
        model = model.to_empty(device='cpu')
        optim_wrapper = build_optim_wrapper(model, _simplify(config.optim_wrapper))
        with TensorMemory() as memory:
            # The first update creates the state of the optimizer, the second one has the peak.
            accumulated = config.optim_wrapper.get('accumulative_counts', 1)
            for step in range(2 * accumulated):
                if step == accumulated:
                    state = memory.live
                with torch.autocast('cpu', torch.bfloat16, enabled=mixed_precision):
                    loss = sum(_losses(model, batch).values())
                optim_wrapper.update_params(loss)
                del loss  # and with it the graph
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    return MemoryEstimate(weights, state, memory.peak - state)


def _simplify(optim_wrapper: Dict[str, Any]) -> Dict[str, Any]:
    """Without what mmengine refuses: mixed precision on a CPU, and a log of the norm of fake gradients."""
    options = {key: value for key, value in optim_wrapper.items() if key not in ('dtype', 'loss_scale')}
    return dict(options, type='OptimWrapper', clip_grad=None)


def _losses(model: Any, batch: Dict[str, Any]) -> Dict[str, Tensor]:
    # MaskTransformer.loss would check the values of the losses.
    images = torch.empty_like(batch['inputs'])
    with recompute_activations(model.recompute_activations):
        return model.panoptic_head.loss(model.extract_feat(images), batch['data_samples'])


def estimate_config(config: Config,
                    batch_sizes: Optional[Sequence[int]] = None,
                    size: Optional[Tuple[int, int]] = None,
                    num_segments: int = 20) -> Dict[int, MemoryEstimate]:
    """:func:`estimate_memory` for each batch size.

    Args:
        batch_sizes: None for that of ``train_dataloader``.
        size: None for ``model.data_preprocessor.pad_size``.
        num_segments: Segments of an image.
    """
    return {
        batch_size:
        estimate_memory(config, batch_size, size or config.model.data_preprocessor.pad_size, num_segments)
        for batch_size in batch_sizes or [config.train_dataloader.batch_size]
    }


def format_estimates(estimates: Dict[int, MemoryEstimate]) -> str:
    """A table in GiB, one row per batch size."""
    rows = ['images  weights  optimizer    step    peak (GiB)']
    rows += [
        '{:>6}{:>9.2f}{:>11.2f}{:>8.2f}{:>8.2f}'.format(
            batch_size, *(nbytes / 2**30 for nbytes in (*estimate, estimate.total)))
        for batch_size, estimate in estimates.items()
    ]
    return '\n'.join(rows)
