"""The order, the numbers and the random states of the samples of a resumable training."""
import random
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader, Dataset

from remax_mm.engine.loops import resumable_train_loop
from remax_mm.engine.loops.resumable_train_loop import ResumableDataLoader, seed_generators


class _Draws(Dataset):
    """A sample is its index and what each generator draws; it remembers what was loaded."""
    classes = ('a', 'b')

    def __init__(self, size=7):
        self.size = size
        self.loaded = []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.loaded.append(index)
        return index, random.random(), np.random.rand(), torch.rand(()).item()


def _loader(dataset, sampler=None, batch_size=2, **options):
    sampler = sampler or InfiniteSampler(dataset, seed=1)
    return ResumableDataLoader(DataLoader(dataset, batch_size, sampler=sampler, collate_fn=list, **options))


def _batches(loader, count, start=0, seed=3):
    loader.start_at(start, seed)
    return list(islice(loader, count))


def test_seed_generators__one_state_for_each_key():

    def drawn(*key):
        seed_generators(*key)
        return random.random(), np.random.rand(), torch.rand(()).item()

    assert drawn(1, 2) == drawn(1, 2)
    values = [drawn(*key) for key in ((1, 2), (2, 1), (1, 3), (1, 2, 1), (2**31, 2))]
    for column in zip(*values):
        assert len(set(column)) == len(values)


@pytest.mark.parametrize('workers', [0, 1, 3])
def test_loader__start_continues_the_same_samples(workers):
    whole = _batches(_loader(_Draws()), 12)
    options = dict(multiprocessing_context='fork') if workers else {}
    assert _batches(_loader(_Draws(), num_workers=workers, **options), 7, start=5) == whole[5:]
    # Every pass over the data augments an image anew.
    draws = [sample[1:] for batch in whole for sample in batch]
    assert len(set(draws)) == len(draws)


def test_loader__does_not_load_what_it_leaves_out():
    dataset = _Draws()
    batches = _batches(_loader(dataset), 3, start=1000)
    assert dataset.loaded == [sample[0] for batch in batches for sample in batch]
    assert len(dataset.loaded) == 6


def test_loader__order_is_that_of_the_sampler():
    expected = list(islice(InfiniteSampler(_Draws(), seed=3), 20))
    batches = _batches(_loader(_Draws()), 8, start=2)  # the seed 3 is set at the start
    assert [sample[0] for batch in batches for sample in batch] == expected[4:]


def test_loader__finite_sampler_is_repeated():
    dataset = _Draws()
    indices = [
        sample[0] for batch in _batches(_loader(dataset, DefaultSampler(dataset, seed=1)), 8)
        for sample in batch
    ]
    passes = []
    for epoch in range(2):
        sampler = DefaultSampler(dataset, seed=3)
        sampler.set_epoch(epoch)
        passes += list(sampler)
    assert indices == passes and passes[:7] != passes[7:]


def test_loader__processes_have_the_samples_of_one(monkeypatch):
    """Two processes with batch 2 load what one process with batch 4 loads, with the same augmentation."""
    whole = _batches(_loader(_Draws(), batch_size=4), 5)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(resumable_train_loop, 'get_dist_info', lambda rank=rank: (rank, 2))
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        parts.append(_batches(_loader(_Draws()), 5))
    assert [sorted(first + second) for first, second in zip(*parts)] == [sorted(batch) for batch in whole]


def test_loader__attributes_of_the_dataset():
    loader = _loader(_Draws())
    assert loader.dataset.classes == ('a', 'b') and len(loader.dataset) == 7
    with pytest.raises(AttributeError, match='palette'):
        loader.dataset.palette


def test_loader__no_batch():
    dataset = _Draws(1)
    loader = ResumableDataLoader(
        DataLoader(dataset, batch_sampler=BatchSampler(DefaultSampler(dataset), 2, drop_last=True)))
    with pytest.raises(ValueError, match='at least one batch'):
        _batches(loader, 1)
    with pytest.raises(ValueError, match='batch size'):
        ResumableDataLoader(DataLoader(dataset, batch_size=None))


@pytest.mark.parametrize('iteration, lost', [(8, None), (10, 'last 2 iterations')])
def test_loop__warns_of_lost_gradients(iteration, lost):
    warnings = []
    runner = SimpleNamespace(
        optim_wrapper=SimpleNamespace(_accumulative_counts=4),
        logger=SimpleNamespace(warning=warnings.append))
    loop = SimpleNamespace(_iter=iteration, runner=runner)
    resumable_train_loop.ResumableTrainLoop._check_accumulation(loop)
    assert len(warnings) == (lost is not None) and all(lost in warning for warning in warnings)
