"""A model with its optimizer and drawn images, for the measurements of training steps."""
import copy
import gc
import statistics
import sys
from typing import Any, Dict, List, NamedTuple

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope

from remax_mm.analysis.step_cost import draw_batch
from remax_mm.analysis.training_overhead import peak_memory, time_in_turns
from remax_mm.apis.run_config import load_config, use_mixed_precision
from remax_mm.compat import has_mmcv_ops
from .part import CannotRun, Context
from .records import Case
from .scale import Model, Scale

FLOAT32 = 'float32'
# The first steps of a warm-up; images from the same distribution for all models.
TRAINING_OPTIONS = {'optim_wrapper.optimizer.lr': 1e-6, 'model.backbone.init_cfg': None}
NUM_DRAWN = 4
"""Number of different images; larger batches repeat them."""


class Trainee(NamedTuple):
    """A model in training mode, its optimizer, and the config of both."""
    model: BaseDetector
    optim_wrapper: OptimWrapper
    config: Config


def list_model_cases(scale: Scale) -> List[Case]:
    """The models of this package in bfloat16 and float32."""
    return [
        Case(f'{model.title}, {precision}', dict(model=model.title, precision=precision))
        for precision in ('bfloat16', FLOAT32) for model in scale.models
    ]


def find_model(context: Context) -> Model:
    """The model that a case names in its options."""
    models = (*context.scale.models, *context.scale.mask2former)
    return next(model for model in models if model.title == context.case.options['model'])


def load_training_config(context: Context, options: Dict[str, Any]) -> Config:
    """The config of the case's model for training steps in the precision that the case names.

    Args:
        options: further overrides by dotted keys.

    Raises:
        CannotRun: mixed precision on a CPU, which mmengine does not have.
    """
    precision = context.case.options.get('precision', FLOAT32)
    config = load_config(find_model(context).name, {**TRAINING_OPTIONS, **options})
    if precision == FLOAT32:
        return config
    if context.device != 'cuda':
        raise CannotRun(f"mmengine's mixed precision needs a GPU, but {precision} was asked for on a CPU")
    return use_mixed_precision(config, precision)


def build_trainee(context: Context, config: Config) -> Trainee:
    """A model with random weights on the device of the report."""
    free_memory()
    init_default_scope('mmdet')
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # as env_cfg of all configs
    model = MODELS.build(config.model)
    model.init_weights()
    model = model.to(context.device).train()
    return Trainee(model, build_optim_wrapper(model, config.optim_wrapper), config)


def draw_images(context: Context, model: BaseDetector, batch_size: int) -> Dict[str, Any]:
    """A batch, pinned as a data loader pins it."""
    num_drawn = min(batch_size, NUM_DRAWN)
    num_classes = (model.num_things_classes, model.num_stuff_classes)
    side = find_model(context).side
    drawn = draw_batch(num_drawn, (side, side), context.scale.num_segments, num_classes, seed=0)
    images = [image.pin_memory() if context.device == 'cuda' else image for image in drawn['inputs']]
    numbers = [number % num_drawn for number in range(batch_size)]
    return dict(
        inputs=[images[number] for number in numbers],
        data_samples=[drawn['data_samples'][number] for number in numbers])


def repeat_batch(batch: Dict[str, Any]) -> Dict[str, Any]:
    """The same images, each with its own copy of its sample, which the data preprocessor changes."""
    # Not one deep copy of the list, which would keep repeated samples one object.
    return dict(inputs=batch['inputs'], data_samples=[copy.deepcopy(one) for one in batch['data_samples']])


def measure_steps(context: Context, trainee: Trainee, batch_size: int) -> Dict[str, Any]:
    """Time and memory of training steps of one batch size.

    Returns:
        ``batch_size``; ``seconds`` of a step, the median; ``images_per_second``; ``peak_memory`` in bytes: on
        a GPU all that is allocated, with weights, gradients and optimizer; on a CPU what a step adds;
        ``first_step``, the seconds of the first step, in which kernels are chosen or compiled.

    Raises:
        torch.cuda.OutOfMemoryError: the batch does not fit.
    """
    scale, (model, optim_wrapper, _) = context.scale, trainee
    free_memory()
    optim_wrapper.zero_grad()
    batch = draw_images(context, model, batch_size)
    batches: List[Dict[str, Any]] = []

    def step() -> None:
        model.train_step(batches.pop(), optim_wrapper)

    def run(rounds: int) -> List[float]:
        batches.extend(repeat_batch(batch) for _ in range(rounds))
        return time_in_turns(dict(step=step), rounds, warmup=0)['step']

    first_step = run(1)[0]
    run(scale.warmup - 1)
    if context.device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        seconds = statistics.median(run(scale.rounds))
        peak = torch.cuda.max_memory_allocated()
    else:
        seconds = statistics.median(run(scale.rounds))
        batches.append(repeat_batch(batch))
        peak = peak_memory(step)
    return dict(
        batch_size=batch_size,
        seconds=seconds,
        images_per_second=batch_size / seconds,
        peak_memory=peak,
        first_step=first_step)


def free_memory() -> None:
    """Give back the memory of what the last measurement left behind."""
    gc.collect()
    if 'torch._dynamo' in sys.modules:
        torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def use_available_ops(precision: str) -> str:
    """Let MMDetection's deformable attention run where mmcv has no compiled op for it.

    The compiled op does not take bfloat16.

    Returns:
        ``'compiled'`` or ``'PyTorch'``.
    """
    from mmcv.ops import multi_scale_deform_attn
    compiled = has_mmcv_ops() and precision != 'bfloat16'
    multi_scale_deform_attn.IS_CUDA_AVAILABLE = compiled and torch.cuda.is_available()
    return 'compiled' if compiled else 'PyTorch'
