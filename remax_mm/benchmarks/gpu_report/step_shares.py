"""Part of the report on the share of time in data, forward pass, criterion, matching and backward pass."""
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from remax_mm.datasets import write_mini_panoptic
from ..coco_like_images import draw_coco_like
from .part import Context
from .trainee import Trainee, build_trainee, load_training_config

SECTIONS = ('data', 'preprocessing', 'forward', 'criterion', 'matching', 'backward', 'optimizer')
NUM_IMAGES, SEGMENTS, SPLIT = 16, (5, 30), 'drawn'


class Stopwatch:
    """Seconds of named sections. The time of an inner section does not count for the outer one.

    Args:
        synchronize: called at the borders of the sections, so that a GPU finishes what a section started.
    """

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.seconds: Dict[str, float] = {}
        self._synchronize = synchronize
        self._inner = [0.]

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Count the time of the context for a section."""
        self._synchronize()
        start = time.perf_counter()
        self._inner.append(0.)
        try:
            yield
        finally:
            self._synchronize()
            seconds = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.) + seconds - self._inner.pop()
            self._inner[-1] += seconds

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Let all calls of a method count for a section."""
        function = getattr(owner, method)

        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.section(name):
                return function(*args, **kwargs)

        setattr(owner, method, watched)


def measure_shares(context: Context) -> Iterator[Dict[str, Any]]:
    """Seconds of the sections of a training step with its data loader, at the batch size of the recipes.

    The step waits for the GPU between the sections, so it takes longer than one that does not.

    Yields:
        ``seconds`` of each section of a step, ``step``, their sum, ``batch_size`` and ``num_workers``.
    """
    config = load_training_config(context, {})
    loader_config = _loader_config(context, config)
    trainee = build_trainee(context, config)
    batches = iter(Runner.build_dataloader(loader_config, seed=0))

    def wait() -> None:
        if context.device == 'cuda':
            torch.cuda.synchronize()

    stopwatch = Stopwatch(wait)
    criterion = trainee.model.panoptic_head.criterion
    stopwatch.watch(criterion, 'forward', 'criterion')
    stopwatch.watch(criterion.assigner, 'assign', 'matching')
    stopwatch.watch(trainee.optim_wrapper, 'backward', 'backward')
    steps = context.scale.loader_steps
    for _ in range(steps):
        _step(stopwatch, trainee, batches)
    stopwatch.seconds.clear()
    for _ in range(steps):
        _step(stopwatch, trainee, batches)

    seconds = {name: stopwatch.seconds[name] / steps for name in SECTIONS}
    yield dict(
        seconds=seconds,
        step=sum(seconds.values()),
        batch_size=loader_config.batch_size,
        num_workers=loader_config.num_workers)


def _step(stopwatch: Stopwatch, trainee: Trainee, batches: Iterator[Any]) -> None:
    """What ``train_step`` of mmengine's models does."""
    model, optim_wrapper, _ = trainee
    with stopwatch.section('data'):
        batch = next(batches)
    with stopwatch.section('preprocessing'):
        data = model.data_preprocessor(batch, training=True)
    with stopwatch.section('forward'):
        with optim_wrapper.optim_context(model):
            losses = model(**data, mode='loss')
        loss, _ = model.parse_losses(losses)
    with stopwatch.section('optimizer'):
        optim_wrapper.update_params(loss)


def _loader_config(context: Context, config: Config) -> Config:
    """The data loader of the config on drawn images."""
    scale, loader = context.scale, config.train_dataloader
    loader.update(
        batch_size=scale.batch_size, num_workers=scale.num_workers, persistent_workers=scale.num_workers > 0)
    if scale.coco_like:
        folder = _draw_once(context.folder / 'data' / 'coco_like')
        loader.dataset.update(
            data_root=str(folder),
            ann_file=f'annotations/panoptic_{SPLIT}.json',
            data_prefix=dict(img=f'{SPLIT}/', seg=f'annotations/panoptic_{SPLIT}/'))
    else:
        loader.dataset.data_root = str(mini_dataset(context))
    return loader


def _draw_once(folder: Path) -> Path:
    """Drawn images of COCO's size."""
    if not folder.exists():
        unfinished = folder.with_name(f'{folder.name}.{time.time_ns()}')
        draw_coco_like(unfinished, SPLIT, NUM_IMAGES, SEGMENTS)
        unfinished.rename(folder)
    return folder


def mini_dataset(context: Context) -> Path:
    """Folder of the mini dataset, which is drawn if it is not there."""
    folder = context.folder / 'data' / 'mini_panoptic'
    write_mini_panoptic(folder, *context.scale.mini_images)
    return folder
