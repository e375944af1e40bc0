"""The replacement for mmcv's ops, launching on CPUs, checks of versions."""
import importlib.util
import sys
from datetime import timedelta

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from torch import nn

from remax_mm import compat

OPS_ARE_MISSING = isinstance(sys.modules.get('mmcv._ext'), compat._MissingOps)
needs_missing_ops = pytest.mark.skipif(not OPS_ARE_MISSING, reason='this mmcv has its compiled ops')

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
