"""Time the inference of one model in a process of its own; it also runs with older commits of the package.

    python -c "$(cat remax_mm/benchmarks/inference_worker.py)" REQUEST

The request is JSON with the fields of :class:`Request`. After its warm-up the process writes ``ready``. Then
it answers each line on standard input by the seconds of one image, as JSON with the fields of
:class:`Seconds`.
"""
import json
import os
import resource
import sys
import time
from functools import partial
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import remax_mm  # noqa: F401  (makes mmdet importable)

try:
    from remax_mm.models.inference_copy import inference_copy
except ImportError:  # its place in 55d733f
    from remax_mm.analysis.complexity import inference_copy

NUM_CONFIDENT = 20
BALLAST_STEP = 2**24
"""Bytes."""


class Request(NamedTuple):
    """What to measure.

    Attributes:
        config: config file.
        engine: one of ``ENGINES``.
        size: height and width of the image and of the network input.
        threads: of the CPU.
        device: of torch; the ONNX engines always run on the CPU.
        checkpoint: weights; None for random ones.
        onnx: exported model of the ONNX engines.
        warmup: images before the measurement.
    """
    config: str
    engine: str
    size: Tuple[int, int]
    threads: int = 1
    device: str = 'cpu'
    checkpoint: Optional[str] = None
    onnx: Optional[str] = None
    warmup: int = 2


class Seconds(NamedTuple):
    """Wall and CPU seconds of the network and of the merging of its masks, and the peak memory in bytes.

    The memory is that of weights, activations and, in the first images, of compilation.
    """
    network: float
    merging: float
    network_cpu: float
    merging_cpu: float
    peak_memory: int


class Engine(NamedTuple):
    """How a model runs.

    Attributes:
        network: runs the network on the image of the request.
        merge: merges masks to a panoptic map; gets what the network returned.
    """
    network: Callable[[], Any]
    merge: Callable[[Any], Any]


def build_detector(request: Request) -> nn.Module:
    """The detector of a config in evaluation mode, without training-only parts."""
    from mmdet.registry import MODELS
    from mmengine.runner import load_checkpoint

    config = Config.fromfile(request.config)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    if request.checkpoint:
        load_checkpoint(model, request.checkpoint, map_location='cpu')
    return inference_copy(model).requires_grad_(False).to(request.device)


def torch_engine(request: Request, model: Any) -> Engine:
    """The network on a drawn image; its fusion head on drawn logits, as untrained masks are all void."""
    from mmdet.structures import DetDataSample

    metainfo = {key: tuple(request.size) for key in ('img_shape', 'ori_shape', 'batch_input_shape')}
    samples = [DetDataSample(metainfo=metainfo)]
    image = torch.randn(1, 3, *request.size, generator=torch.Generator().manual_seed(0)).to(request.device)

    def network() -> Any:
        return model.panoptic_head.predict(model.extract_feat(image), samples)

    with torch.no_grad():
        logits = tuple(part.to(request.device) for part in draw_logits(*network()))

    def merge(_: Any) -> Any:
        return model.panoptic_fusion_head.predict(*logits, samples, rescale=True)

    return Engine(network, merge)


def onnx_engine(request: Request) -> Engine:
    """An exported model with its runtime; its graph merges the masks as far as it can."""
    from remax_mm.deploy.remax_runtime import PanopticModel, merge
    if request.onnx is None:
        raise ValueError(f'Expected an exported model for the engine {request.engine}, but got none')
    model = PanopticModel(request.onnx, num_threads=request.threads)
    pixels = np.random.RandomState(0).randint(0, 256, (*request.size, 3)).astype(np.uint8)
    return Engine(lambda: model.run(pixels, request.size), lambda outputs: merge(outputs, model.metadata))


def eager(request: Request) -> Engine:
    """The detector as it is."""
    return torch_engine(request, build_detector(request))


def optimized(request: Request) -> Engine:
    """After ``optimize_for_inference``."""
    from remax_mm.deploy.optimize import optimize_for_inference
    return torch_engine(request, optimize_for_inference(build_detector(request)))


def bfloat16(request: Request) -> Engine:
    """After ``optimize_for_inference``, under autocast to bfloat16."""
    from remax_mm.deploy.optimize import optimize_for_inference
    return torch_engine(request, optimize_for_inference(build_detector(request), dtype=torch.bfloat16))


def compiled(request: Request) -> Engine:
    """After ``optimize_for_inference`` with ``torch.compile``."""
    from remax_mm.deploy.optimize import optimize_for_inference
    return torch_engine(request, optimize_for_inference(build_detector(request), compile=True))


def recorded(request: Request, dtype: Optional[torch.dtype] = None) -> Engine:
    """After ``optimize_for_inference``, with CUDA graphs.

    Raises:
        RuntimeError: the network cannot be recorded, as on a CPU.
    """
    from remax_mm.deploy.cuda_graphs import use_cuda_graphs
    from remax_mm.deploy.optimize import optimize_for_inference
    model = optimize_for_inference(build_detector(request), dtype=dtype)
    runner = use_cuda_graphs(model)
    engine = torch_engine(request, model)
    if runner.reasons:
        raise RuntimeError(
            f'Expected images that a CUDA graph takes, but {"; ".join(runner.reasons.values())}')
    return engine


ENGINES: Dict[str, Callable[[Request], Engine]] = {
    'eager': eager,
    'optimized': optimized,
    'bfloat16': bfloat16,
    'cuda-graphs': recorded,
    'bfloat16-cuda-graphs': partial(recorded, dtype=torch.bfloat16),
    'compile': compiled,
    'onnx': onnx_engine,
    'int8': onnx_engine,
}
GPU_ENGINES = ('cuda-graphs', 'bfloat16-cuda-graphs')


def draw_logits(class_logits: Tensor, mask_logits: Tensor) -> Tuple[Tensor, Tensor]:
    """Logits of the given shapes: 20 confident slots of different classes, smooth masks with noise."""
    rng = np.random.RandomState(0)
    _, num_slots, num_outputs = class_logits.shape
    classes = rng.randn(num_slots, num_outputs)
    classes[:, -1] += 12
    slots = np.arange(min(NUM_CONFIDENT, num_slots))
    classes[slots, slots * 7 % (num_outputs - 1)] += 18

    height, width = mask_logits.shape[-2:]
    coarse = torch.from_numpy(5 * rng.randn(1, num_slots, height // 8 + 2, width // 8 + 2)).float()
    masks = F.interpolate(coarse, (height, width), mode='bilinear', align_corners=True)
    return torch.from_numpy(classes).float()[None], masks + torch.randn_like(masks)


def peak_bytes() -> int:
    """Largest resident set of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024


def lift_memory() -> List[np.ndarray]:
    """Memory that lifts the resident set to its peak, so that what comes after it raises the peak."""
    ballast, before = [], peak_bytes()
    while peak_bytes() == before:
        ballast.append(np.ones(BALLAST_STEP, np.uint8))
    return ballast


def measure(engine: Engine, device: str, memory_before: int) -> Seconds:
    """One image."""
    on_gpu = device.startswith('cuda')
    times = []

    def tick() -> None:
        if on_gpu:
            torch.cuda.synchronize()
        times.append((time.perf_counter(), time.process_time()))

    tick()
    outputs = engine.network()
    tick()
    engine.merge(outputs)
    tick()
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_bytes() - memory_before
    (start, start_cpu), (middle, middle_cpu), (end, end_cpu) = times
    return Seconds(middle - start, end - middle, middle_cpu - start_cpu, end_cpu - middle_cpu, peak)


@torch.no_grad()
def main() -> None:
    """Serve measurements until standard input ends."""
    # What libraries print must not get into the answers.
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    ballast = lift_memory()
    memory_before = peak_bytes()
    request = Request(**json.loads(sys.argv[1]))
    torch.set_num_threads(request.threads)
    engine = ENGINES[request.engine](request)
    for _ in range(request.warmup):
        measure(engine, request.device, memory_before)
    print('ready', file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure(engine, request.device, memory_before)._asdict()), file=answers, flush=True)
    del ballast


if __name__ == '__main__':
    main()
