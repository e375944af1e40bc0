"""The replacement for mmcv's ops, loading of checkpoints, launching on CPUs, checks of versions."""
import importlib.util
import os
import pickle
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Tuple

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from packaging.version import Version
from torch import Tensor, nn

from remax_mm import compat

OPS_ARE_MISSING = isinstance(sys.modules.get('mmcv._ext'), compat._MissingOps)
needs_missing_ops = pytest.mark.skipif(not OPS_ARE_MISSING, reason='this mmcv has its compiled ops')
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


# ---- missing ops


@needs_missing_ops
def test_missing_ops__error_names_the_op_and_the_package() -> None:
    from mmcv.ops import nms

    with pytest.raises(RuntimeError, match='`nms` is not available.*full `mmcv`'):
        nms(torch.tensor([[0., 0., 1., 1.]]), torch.tensor([1.]), iou_threshold=0.5)


@needs_missing_ops
def test_missing_ops__is_not_a_package() -> None:
    assert not hasattr(sys.modules['mmcv._ext'], '__path__')
    assert importlib.util.find_spec('mmcv._ext').loader is None


def test_replace_missing_mmcv_ops__keeps_a_loaded_extension() -> None:
    before = sys.modules['mmcv._ext']
    compat._replace_missing_mmcv_ops()
    assert sys.modules['mmcv._ext'] is before


def test_replace_missing_mmcv_ops__mmengine_can_check_for_ops() -> None:
    wrapper = build_optim_wrapper(
        nn.Sequential(nn.Linear(1, 1)),
        dict(optimizer=dict(type='SGD', lr=1., weight_decay=0.1), paramwise_cfg=dict(bias_decay_mult=0.)))
    assert wrapper.param_groups[1]['weight_decay'] == 0

    assert not isinstance(revert_sync_batchnorm(nn.Sequential(nn.SyncBatchNorm(2)))[0], nn.SyncBatchNorm)


def test_mmdet_and_mmseg_models__import() -> None:
    import mmdet.models
    import mmseg.models

    assert mmdet.models.MaskFormer and mmseg.models.MobileNetV3


# ---- checkpoints


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


# ---- several processes


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> list:
    """No device except the CPU; returns what process groups are initialized with: backend and timeout."""
    backends = []
    monkeypatch.setattr('mmengine.device.get_device', lambda: 'cpu')
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda *given, **options: backends.append(
        (*given, *options.values())))
    return backends


def test_prepare_launch__torchrun_without_a_gpu(_no_gpu: list) -> None:
    cfg = Config(dict(launcher='pytorch', sync_bn='torch', find_unused_parameters=True))
    with pytest.warns(UserWarning, match='its own images'):
        compat.prepare_launch(cfg)
    assert _no_gpu == [('gloo', None)] and cfg.sync_bn is None
    assert cfg.model_wrapper_cfg == dict(
        device_ids=None, broadcast_buffers=False, find_unused_parameters=True)


def test_prepare_launch__keeps_the_wrapper_of_the_config(_no_gpu: list) -> None:
    cfg = Config(dict(launcher='pytorch', model_wrapper_cfg=dict(type='MMDistributedDataParallel')))
    compat.prepare_launch(cfg)
    assert cfg.model_wrapper_cfg == dict(type='MMDistributedDataParallel', device_ids=None)
    assert 'sync_bn' not in cfg


def test_prepare_launch__timeout_of_the_config(_no_gpu: list) -> None:
    cfg = Config(dict(launcher='pytorch', env_cfg=dict(dist_cfg=dict(backend='nccl', timeout=90))))
    compat.prepare_launch(cfg)
    assert _no_gpu == [('gloo', timedelta(seconds=90))]


def test_prepare_launch__other_launchers_need_a_gpu(_no_gpu: list) -> None:
    with pytest.raises(RuntimeError, match='Expected a GPU for --launcher slurm'):
        compat.prepare_launch(Config(dict(launcher='slurm')))
    assert not _no_gpu


@pytest.mark.parametrize('launcher, device', [('none', 'cpu'), ('pytorch', 'cuda'), ('slurm', 'cuda')])
def test_prepare_launch__does_nothing_with_a_gpu_or_a_single_process(monkeypatch: pytest.MonkeyPatch,
                                                                     _no_gpu: list, launcher: str,
                                                                     device: str) -> None:
    monkeypatch.setattr('mmengine.device.get_device', lambda: device)
    cfg = Config(dict(launcher=launcher, sync_bn='torch'))
    compat.prepare_launch(cfg)
    assert cfg.to_dict() == dict(launcher=launcher, sync_bn='torch') and not _no_gpu


# ---- versions


def test_host_versions__of_this_environment() -> None:
    import mmdet
    import mmengine

    versions = compat.host_versions()
    assert versions['mmengine'][1] == mmengine.__version__
    assert versions['mmdet'][1] == mmdet.__version__
    assert set(versions) == {'mmengine', 'mmcv', 'mmdet', 'mmseg'}


def _pretend_installed(monkeypatch: pytest.MonkeyPatch, versions: dict) -> None:

    def version(distribution: str) -> str:
        if distribution not in versions:
            raise compat.metadata.PackageNotFoundError(distribution)
        return versions[distribution]

    monkeypatch.setattr(compat.metadata, 'version', version)


def test_versions__missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_installed(monkeypatch, {'mmengine': '0.10.7', 'mmcv-lite': '2.1.0'})
    monkeypatch.setattr(compat.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r'`mmdet`, which is not installed.*openmmlab.*onedl'):
        compat._check_versions()


def test_versions__packages_without_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_installed(monkeypatch, {})
    compat._check_versions()
    assert compat.host_versions() == dict(mmengine=None, mmcv=None, mmdet=None, mmseg=None)


def test_versions__older_than_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_installed(monkeypatch, {'mmdet': '3.0.0'})
    with pytest.warns(UserWarning, match='tested with mmdet >= 3.2.0, but 3.0.0'):
        compat._check_versions()


def test_versions__two_stacks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_installed(monkeypatch, {'mmdet': '3.3.0', 'onedl-mmdetection': '3.5.1'})
    with pytest.warns(UserWarning, match='mmdet and onedl-mmdetection, which overwrite'):
        compat._check_versions()
