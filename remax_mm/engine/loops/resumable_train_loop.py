"""Training loop that continues after a restart as if it had never stopped."""
import random
from itertools import count
from typing import Any, Iterator, List, NamedTuple, Sequence

import numpy as np
import torch
from mmdet.registry import LOOPS
from mmengine.dist import broadcast_object_list, get_dist_info
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

# First word of the key of a random state: what it is for.
_STEP, _SAMPLE = 0, 1

# What a data loader is built from, next to its dataset and its batch sampler.
_LOADER_OPTIONS = ('num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn',
                   'multiprocessing_context', 'prefetch_factor', 'persistent_workers')


def seed_generators(*key: int) -> None:
    """Seed the global generators of Python, NumPy and torch (CPU and GPUs).

    Args:
        key: non-negative numbers; other keys give independent states.
    """
    words = np.random.SeedSequence(key).generate_state(4)
    random.seed(words.tobytes())
    np.random.seed(words)
    torch.manual_seed(int(words[:2].view(np.uint64)[0]))


class NumberedSample(NamedTuple):
    """A sample of a training.

    Attributes:
        number: of the image in the dataset.
        position: in the order of the samples of all processes, from 0.
    """
    number: int
    position: int


class _NumberedBatches(Sampler):
    """Repeat a batch sampler without end, and number its samples.

    Args:
        batch_sampler: gives the dataset indices of each batch of this process.

    Attributes:
        start: number of batches to leave out at the beginning.
    """

    def __init__(self, batch_sampler: Any) -> None:
        self.batch_sampler = batch_sampler
        self.rank, self.world_size = get_dist_info()
        self.start = 0

    @property
    def sampler(self) -> Any:
        """The sampler of the batch sampler, on which mmengine's hooks call ``set_epoch``."""
        return self.batch_sampler.sampler

    @property
    def batch_size(self) -> int:
        """Images per batch, which mmengine's ``FlexibleRunner`` asks for."""
        return self.batch_sampler.batch_size

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[List[NumberedSample]]:
        position = self.rank
        for number, indices in enumerate(self._repeated()):
            following = position + len(indices) * self.world_size
            if number >= self.start:
                yield [
                    NumberedSample(*pair)
                    for pair in zip(indices, range(position, following, self.world_size))
                ]
            position = following

    def _repeated(self) -> Iterator[Sequence[int]]:
        for epoch in count():
            if hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(epoch)
            indices: Sequence[int] = ()
            for indices in self.batch_sampler:
                yield indices
            if not indices:
                raise ValueError('Expected at least one batch for training, but the batch sampler of '
                                 '`train_dataloader` gives none; are there fewer images than its batch size?')


class _SeededDataset(Dataset):
    """Seed the generators before each sample, by its position in the training.

    The augmentation of a sample then depends neither on the worker that loads it, nor on what this worker has
    loaded before.

    Args:
        dataset: its other attributes are also found here.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.seed = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, sample: NumberedSample) -> Any:
        seed_generators(self.seed, _SAMPLE, sample.position)
        return self.dataset[sample.number]

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.dataset, name)


class ResumableDataLoader(DataLoader):
    """The batches of another data loader, without end, from any batch on.

    Args:
        loader: a data loader with a batch sampler. It is not iterated.
    """

    def __init__(self, loader: DataLoader) -> None:
        if loader.batch_sampler is None:
            raise ValueError('Expected a batch size for `train_dataloader`, but got None')
        self._samples = _SeededDataset(loader.dataset)
        self._batches = _NumberedBatches(loader.batch_sampler)
        options = {name: getattr(loader, name) for name in _LOADER_OPTIONS}
        super().__init__(self._samples, batch_sampler=self._batches, **options)

    def start_at(self, batch: int, seed: int) -> None:
        """Set the first batch and the seed; to be called before the first iteration.

        Args:
            batch: number of batches to leave out. They are not loaded.
            seed: seed of the order and of the augmentation of the samples.
        """
        self._batches.start = batch
        self._samples.seed = seed
        if hasattr(self._batches.sampler, 'seed'):
            self._batches.sampler.seed = seed

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names its own class
        # A generator, so that workers start with the first batch, and not when mmengine asks for an iterator.
        yield from super().__iter__()


@LOOPS.register_module()
class ResumableTrainLoop(IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop`` with an exact resume.

    No random state is carried from iteration to iteration. Each training step and each sample has its own,
    derived from the seed of the run, which mmengine stores in the checkpoint, and from the number of the step
    (and the rank) or of the sample. The weights, the optimizer and the number of the iteration in a
    checkpoint thus determine the rest of the training, with any number of workers, and a resume loads no
    sample that was used before. It repeats the validation that is due at the iteration of the checkpoint,
    because that training may have stopped before the end of this validation.

    Not exact: an iteration within a cycle of gradient accumulation (a warning is logged), samplers whose
    order does not depend on their attribute ``seed``, datasets that remember earlier samples.

    Args:
        runner: the runner.
        dataloader: of the training set, or its config. Finite samplers are repeated without a restart of
            the workers.
        options: those of ``IterBasedTrainLoop``: ``max_iters``, ``val_begin``, ``val_interval``,
            ``dynamic_intervals``.
    """

    def __init__(self, runner: Runner, dataloader: Any, **options: Any) -> None:
        BaseLoop.__init__(self, runner, dataloader)
        super().__init__(runner, ResumableDataLoader(self.dataloader), **options)
        self._seed = 0

    def run(self) -> nn.Module:
        """Train from the current iteration to the last one."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')

        # mmengine may have replaced the seed by that of the checkpoint.
        seed = [self.runner.seed]
        broadcast_object_list(seed)
        self._seed = seed[0]
        self.dataloader.start_at(self._iter, self._seed)
        if self._iter > 0:
            self._check_accumulation()
            self._validate_if_due()

        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._validate_if_due()

        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_iter(self, data_batch: Any) -> None:
        """Seed the generators, then train on a batch."""
        seed_generators(self._seed, _STEP, self._iter, self.runner.rank)
        super().run_iter(data_batch)

    def _validate_if_due(self) -> None:
        self._decide_current_val_interval()
        due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        if self.runner.val_loop is not None and self._iter >= self.val_begin and due:
            self.runner.val_loop.run()

    def _check_accumulation(self) -> None:
        steps = getattr(self.runner.optim_wrapper, '_accumulative_counts', 1)
        if self._iter % steps:
            self.runner.logger.warning(
                f'The checkpoint is from iteration {self._iter}, within a cycle of {steps} accumulated '
                f'gradients. The gradients of the last {self._iter % steps} iterations are lost: choose a '
                f'checkpoint interval that is a multiple of {steps}.')
