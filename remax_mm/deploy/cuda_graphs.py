"""CUDA graphs for the inference of images of a fixed size.

A CUDA graph records the kernels of a forward pass once and launches all of them together. Small models spend
most of their time on launching kernels.
"""
import logging
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

import torch
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel
from torch import Tensor, nn

from .optimize import InferenceNetwork

WARMUP_RUNS = 3
"""Runs on a side stream before the recording, as torch.cuda.graphs recommends."""
MAX_SHAPES = 4
"""Number of recorded shapes; each one keeps its own memory on the GPU."""

Logits = Tuple[Tensor, Tensor]
Shape = Tuple[torch.Size, torch.dtype]


class Recording(NamedTuple):
    """A CUDA graph, the tensor that it reads and the tensors that it writes."""
    graph: Any
    images: Tensor
    logits: Logits


class CudaGraphRunner:
    """Runs a function of images by CUDA graphs, one for each shape, and calls it where that is not possible.

    Args:
        function: from images (B, 3, H, W) to class logits and mask logits. It must not wait for the GPU, and
            has no other inputs.

    Attributes:
        reasons: for each shape that is not recorded, the reason.
    """

    def __init__(self, function: Callable[[Tensor], Logits]) -> None:
        self.function = function
        self.reasons: Dict[Shape, str] = {}
        self._recordings: Dict[Shape, Recording] = {}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Logits:
        """Class logits and mask logits; they belong to the caller."""
        shape = (images.shape, images.dtype)
        if shape not in self._recordings and shape not in self.reasons:
            self._record(shape, images)
        recording = self._recordings.get(shape)
        if recording is None:
            return self.function(images)

        recording.images.copy_(images)
        recording.graph.replay()
        # The next replay overwrites them.
        class_logits, mask_logits = recording.logits
        return class_logits.clone(), mask_logits.clone()

    def _record(self, shape: Shape, images: Tensor) -> None:
        reason = self._why_not(images)
        if reason is None:
            try:
                self._recordings[shape] = record(self.function, images)
            except RuntimeError as error:  # also the errors of CUDA, such as an operation that is not allowed
                reason = f'the recording failed: {error}'
        if reason is not None:
            self.reasons[shape] = reason
            print_log(
                f'Images of shape {tuple(images.shape)} run without a CUDA graph: {reason}',
                logger='current',
                level=logging.WARNING)

    def _why_not(self, images: Tensor) -> Optional[str]:
        if images.device.type != 'cuda':
            return f'they are on {images.device}, not on a GPU of NVIDIA'
        if len(self._recordings) >= MAX_SHAPES:
            return f'{MAX_SHAPES} other shapes are recorded already; pad the images to one size'
        return None


def record(function: Callable[[Tensor], Logits], images: Tensor) -> Recording:
    """Record a function on a copy of the images.

    Raises:
        RuntimeError: an operation of the function cannot be recorded.
    """
    images = images.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARMUP_RUNS):
            function(images)
    torch.cuda.current_stream().wait_stream(stream)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = function(images)
    return Recording(graph, images, logits)


def use_cuda_graphs(model: nn.Module) -> CudaGraphRunner:
    """Let an optimized detector run its network by CUDA graphs, in place.

    Args:
        model: result of :func:`optimize_for_inference`, with a head of this package.

    Returns:
        The runner, whose ``reasons`` say which shapes run without a graph.

    Raises:
        TypeError: the model is not optimized, or its head is one of mmdet, which needs the data samples.
    """
    detector = model.module if isinstance(model, BaseTTAModel) else model
    network = getattr(detector, 'panoptic_head', None)
    if type(network) is not InferenceNetwork:
        raise TypeError(
            'Expected a model of optimize_for_inference with a head of kMaX-DeepLab or MaX-DeepLab '
            f'for CUDA graphs, but got {type(model).__name__} with {type(network).__name__}')
    runner = CudaGraphRunner(network.logits)
    network.logits = runner  # type: ignore[method-assign]
    return runner
