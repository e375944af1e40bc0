"""Loading of checkpoints as data: what mmengine writes can be loaded, code cannot."""
import os
import pickle
from pathlib import Path
from typing import Any, Tuple

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from packaging.version import Version
from torch import Tensor, nn

needs_safe_loading = pytest.mark.skipif(
    Version(torch.__version__) < Version('2.6'), reason='torch loads weights only by default from 2.6 on')


class _OneWeight(BaseModel):
    """Learns the mean of its inputs, so the loss curve is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> Any:
        return dict(loss=(self.weight - inputs.float().mean())**2) if mode == 'loss' else self.weight


def _runner(work_dir: Path, iterations: int, resume: bool = False) -> Runner:
    return Runner(
        model=_OneWeight(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=2,
            dataset=torch.full((8, ), 3.),
            sampler=dict(type='InfiniteSampler', shuffle=False),
            collate_fn=lambda samples: dict(inputs=torch.stack(samples))),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[5], end=8)],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4),
            logger=dict(type='LoggerHook', interval=1)),
        resume=resume,
        default_scope='mmdet',
        experiment_name=f'{work_dir.name}_{iterations}_{resume}')


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that mmengine wrote after four iterations, with history buffers in its message hub."""
    work_dir = tmp_path_factory.mktemp('interrupted')
    _runner(work_dir, 4).train()
    return work_dir / 'iter_4.pth'


class _Pickled:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Tuple[Any, Tuple[Any, ...]]:
        return self.call


@needs_safe_loading
def test_checkpoint__loads_with_weights_only(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)

    history = content['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    # The first loss is (0 - 3)^2; the buffer finds its statistics through its table of methods.
    assert history.statistics('max') == pytest.approx(9.)
    assert len(history.data[0]) == 4


@needs_safe_loading
def test_checkpoint__needs_the_allowed_types(checkpoint: Path) -> None:
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with pytest.raises(pickle.UnpicklingError):
            torch.load(checkpoint, weights_only=True)
    finally:
        torch.serialization.add_safe_globals(allowed)


def test_checkpoint__resumes_with_the_same_losses(checkpoint: Path, tmp_path: Path) -> None:
    uninterrupted = _runner(tmp_path / 'uninterrupted', 8)
    uninterrupted.train()

    resumed = _runner(checkpoint.parent, 8, resume=True)
    resumed.train()

    assert resumed.iter == 8
    torch.testing.assert_close(resumed.model.weight, uninterrupted.model.weight, rtol=0, atol=0)
    losses, expected = (run.message_hub.get_scalar('train/loss').data[0] for run in (resumed, uninterrupted))
    np.testing.assert_array_equal(losses, expected)
    assert len(expected) == 8 and (np.diff(expected) < 0).all()


@needs_safe_loading
@pytest.mark.parametrize('folder', ['numpy.core', 'numpy._core'])
def test_checkpoint__of_other_numpy_version_loads(folder: str, tmp_path: Path) -> None:
    file = tmp_path / 'numbers.pth'
    values = dict(array=np.arange(3, dtype=np.int32), number=np.float32(2.5), flag=np.bool_(True))
    torch.save(values, file, pickle_module=_renaming_pickle(folder))
    loaded = torch.load(file, weights_only=True)

    np.testing.assert_array_equal(loaded['array'], [0, 1, 2])
    assert (loaded['number'], loaded['flag']) == (2.5, True)


def _renaming_pickle(folder: str) -> Any:
    """A pickle module that writes the path of numpy's functions as in numpy before or after 2.0."""

    class Pickler(pickle._Pickler):

        def save_global(self, obj: Any, name: Any = None) -> None:
            module = getattr(obj, '__module__', None) or ''
            if module.startswith(('numpy.core', 'numpy._core')):
                self.write(pickle.GLOBAL + f'{folder}.multiarray\n{obj.__name__}\n'.encode())
                self.memoize(obj)
            else:
                super().save_global(obj, name)

        dispatch = dict(pickle._Pickler.dispatch)

    for function_type in (type(len), type(_renaming_pickle)):
        Pickler.dispatch[function_type] = Pickler.save_global

    class Module:
        pass

    Module.Pickler = Pickler
    return Module


@needs_safe_loading
@pytest.mark.parametrize(
    'attack', [
        _Pickled(os.system, 'echo owned'),
        _Pickled(eval, '1 + 1'),
        _Pickled(getattr, HistoryBuffer, '__init__'),
        _Pickled(getattr, HistoryBuffer, '__subclasses__'),
        _Pickled(getattr, np.ndarray, 'tofile'),
        _Pickled(getattr, 'a string', 'format'),
    ],
    ids=['os.system', 'eval', 'init', 'subclasses', 'tofile', 'format'])
def test_checkpoint__malicious_pickle_is_refused(attack: _Pickled, tmp_path: Path) -> None:
    file = tmp_path / 'attack.pth'
    torch.save(dict(state_dict=attack), file)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)
