"""Part of the report on inference with several engines."""
from typing import Any, Dict, Iterator, List

import torch

from remax_mm.model_names import find_config
from ..inference_speed import summarize
from ..inference_worker import ENGINES, GPU_ENGINES, Request, measure
from .part import CannotRun, Context
from .records import Case
from .scale import Scale
from .trainee import find_model, free_memory, use_available_ops

HOST_ENGINES = ('eager', 'bfloat16')
"""Mask2Former's head takes data samples, so it is neither recorded nor compiled."""


def list_inference_cases(scale: Scale) -> List[Case]:
    """Mask2Former, then the models of this package, engine by engine."""
    pairs = [(model, engine) for engine in HOST_ENGINES for model in scale.mask2former]
    pairs += [(model, engine) for engine in scale.engines for model in scale.models]
    return [
        Case(f'{model.title}, {engine}', dict(model=model.title, engine=engine)) for model, engine in pairs
    ]


@torch.no_grad()
def measure_inference(context: Context) -> Iterator[Dict[str, Any]]:
    """One image after the other, with random weights, as in benchmark_inference.py.

    Yields:
        ``network`` and ``whole``, with the merging of drawn masks: ``median`` and ``p95`` in seconds;
        ``peak_memory`` in bytes, with the weights, on a GPU.
    """
    model, engine_name = find_model(context), context.case.options['engine']
    if engine_name in GPU_ENGINES and context.device != 'cuda':
        raise CannotRun('CUDA graphs need a GPU')
    free_memory()
    extra = {}
    if model in context.scale.mask2former:
        extra = dict(deformable_attention=use_available_ops(engine_name))
    on_gpu = context.device == 'cuda'
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()

    request = Request(
        str(find_config(model.name)),
        engine_name, (model.side, model.side),
        threads=torch.get_num_threads(),
        device=context.device)
    engine = ENGINES[engine_name](request)
    for _ in range(request.warmup):
        measure(engine, context.device, 0)
    speed = summarize([measure(engine, context.device, 0) for _ in range(context.scale.images)])
    memory = dict(peak_memory=speed.peak_memory) if on_gpu else {}
    yield dict(network=speed.network._asdict(), whole=speed.whole._asdict(), **memory, **extra)
