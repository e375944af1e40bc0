"""Parts of the report on training steps: speed and memory by batch size, and activation checkpointing."""
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

import torch

from .part import CannotRun, Context, OutOfTime
from .records import Case
from .scale import Scale
from .trainee import (FLOAT32, build_trainee, find_model, load_training_config, measure_steps,
                      use_available_ops)

CHECKPOINTED = ('backbone', 'panoptic_head.pixel_decoder', 'panoptic_head.semantic_head')


def list_training_cases(scale: Scale) -> List[Case]:
    """Models of this package: first bfloat16, then the other precisions, then compiled."""
    cases = []
    for compiled in (False, True):
        for precision, weight in (('bfloat16', 2.), (FLOAT32, 1.), ('float16', 1.)):
            for model in scale.models:
                name = f'{model.title}, {precision}{", compiled" if compiled else ""}'
                options = dict(model=model.title, precision=precision, compiled=compiled)
                cases.append(Case(name, options, weight))
    return cases


def list_mask2former_cases(scale: Scale) -> List[Case]:
    """MMDetection's Mask2Former in all precisions."""
    return [
        Case(f'{model.title}, {precision}', dict(model=model.title, precision=precision, compiled=False))
        for precision in ('bfloat16', FLOAT32, 'float16') for model in scale.mask2former
    ]


def measure_training(context: Context) -> Iterator[Dict[str, Any]]:
    """Images per second and peak memory of a training step, with batches up to what fits.

    A compiled step starts with the batch size of the recipes and is compiled again for each batch size.

    Yields:
        see :func:`double_batch_size`; of Mask2Former also the implementation of ``deformable_attention``.
    """
    scale, options = context.scale, context.case.options
    config = load_training_config(context, {})
    extra = {}
    if find_model(context) in scale.mask2former:
        config.model.data_preprocessor.batch_augments = None  # which pad the images to the size of the recipe
        extra = dict(deformable_attention=use_available_ops(options['precision']))

    trainee = build_trainee(context, config)
    if options['compiled']:  # as mmengine's runner does for `compile=True`
        trainee.model.forward = torch.compile(trainee.model.forward, backend=scale.compile_backend)

    def measure(batch_size: int) -> Dict[str, Any]:
        return measure_steps(context, trainee, batch_size)

    start = scale.batch_size if options['compiled'] else 1
    for result in double_batch_size(measure, start, scale.max_batch_size, context.previous, context.has_time):
        yield {**result, **extra}


def double_batch_size(measure: Callable[[int], Dict[str, Any]], start: int, limit: int,
                      previous: Dict[str, Any], has_time: Callable[[float],
                                                                   bool]) -> Iterator[Dict[str, Any]]:
    """Measure batches of growing size until one does not fit.

    Args:
        measure: measures one batch size, see :func:`measure_steps`.
        start: first batch size. If it does not fit, it is halved until it does.
        limit: largest batch size.
        previous: result of an earlier run that is continued, or {}.
        has_time: whether a number of seconds is left. The first batch size is measured in any case.

    Yields:
        ``points``, the measurements so far, and ``too_large``, the batch size that does not fit, or None.

    Raises:
        CannotRun: a single image does not fit.
        OutOfTime: larger batches may fit.
    """
    points: List[Dict[str, Any]] = list(previous.get('points', []))
    too_large: Optional[int] = None
    batch_size, seconds = (2 * points[-1]['batch_size'] if points else start), 0.
    while batch_size <= limit and batch_size != too_large:
        # A batch takes at least as long as the one before, and mostly twice as long.
        if points and not has_time(2 * seconds):
            raise OutOfTime(f'no time for {batch_size} images or more')
        begin = time.monotonic()
        point = _measure_if_it_fits(measure, batch_size)
        seconds = time.monotonic() - begin
        if point is not None:
            points.append(point)
            yield dict(points=points, too_large=too_large)
            batch_size *= 2
            continue
        too_large = batch_size
        if batch_size == 1:
            raise CannotRun('out of memory with one image')
        if not points:
            batch_size //= 2
    yield dict(points=points, too_large=too_large)


def _measure_if_it_fits(measure: Callable[[int], Dict[str, Any]],
                        batch_size: int) -> Optional[Dict[str, Any]]:
    try:
        return measure(batch_size)
    except torch.cuda.OutOfMemoryError:
        return None


def measure_checkpointing(context: Context) -> Iterator[Dict[str, Any]]:
    """A training step without and with activation checkpointing (``with_cp``), at one batch size.

    Yields:
        ``plain`` and ``checkpointed``, see :func:`measure_steps`; ``time`` and ``memory``, the ratios.
    """
    results = {}
    for name, with_cp in (('plain', False), ('checkpointed', True)):
        options = {f'model.{part}.with_cp': with_cp for part in CHECKPOINTED}
        trainee = build_trainee(context, load_training_config(context, options))
        results[name] = measure_steps(context, trainee, context.scale.batch_size)
        del trainee
    plain, checkpointed = results['plain'], results['checkpointed']
    yield dict(
        results,
        time=checkpointed['seconds'] / plain['seconds'],
        memory=checkpointed['peak_memory'] / plain['peak_memory'])
