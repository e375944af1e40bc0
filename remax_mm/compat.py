"""Differences between the OpenMMLab stacks; no other file depends on which stack is installed.

Two stacks have the same import names: the original packages (mmengine, mmcv, mmdet, mmsegmentation) and their
maintained forks (onedl-mmengine, onedl-mmcv, onedl-mmdetection, onedl-mmsegmentation).
"""
import errno
import importlib.util
import os
import pickle
import re
import sys
import types
import warnings
import zipfile
from contextlib import contextmanager
from datetime import timedelta
from http.client import HTTPException
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Union
from urllib.parse import urlparse

from packaging.version import Version

from .import_hooks import after_import

# import name -> ((distribution, lowest tested version), ...)
HOST_DISTRIBUTIONS: Dict[str, Tuple[Tuple[str, str], ...]] = {
    'mmengine': (('mmengine', '0.10.4'), ('onedl-mmengine', '0.10.8')),
    'mmcv': (('mmcv', '2.0.1'), ('mmcv-lite', '2.0.1'), ('onedl-mmcv', '2.3.0')),
    'mmdet': (('mmdet', '3.2.0'), ('onedl-mmdetection', '3.4.0')),
    'mmseg': (('mmsegmentation', '1.2.0'), ('onedl-mmsegmentation', '1.3.0')),
}
# registry of mmdet -> packages with modules for it
REGISTERED_PACKAGES = dict(
    MODELS=('models', 'deploy.onnx_detector'),
    TASK_UTILS=('models', ),
    DATASETS=('datasets', ),
    TRANSFORMS=('datasets', ),
    HOOKS=('engine', ),
    LOOPS=('engine', ),
    OPTIM_WRAPPER_CONSTRUCTORS=('engine', ),
    METRICS=('evaluation', ),
    VISUALIZERS=('visualization', ))
HOW_TO_INSTALL = (
    "Install one stack, either `pip install 'remax_mm[openmmlab]' mmcv-lite==2.1.0` (mmcv==2.1.0 "
    "instead of mmcv-lite for the compiled ops) or `pip install 'remax_mm[onedl]'`.")


def prepare_host_stack() -> None:
    """Prepare the installed host stack, without importing it.

    mmdet can be imported without compiled ops, its registries find our modules, and checkpoints are loaded as
    data that cannot run code.

    Raises:
        ImportError: mmengine, mmcv, mmdet or mmseg is not installed.
    """
    _check_versions()
    _replace_missing_mmcv_ops()
    after_import('mmdet', _replace_missing_panopticapi)
    after_import('torch', _allow_checkpoint_types)
    after_import('mmengine.config.config', _find_own_configs)
    after_import('mmengine.runner.checkpoint', _load_checkpoints_as_data)
    after_import('mmengine.infer.infer', _refuse_configs_of_checkpoints)
    after_import('mmdet.registry', _register_packages)


def _replace_missing_panopticapi(mmdet: types.ModuleType) -> None:
    """Give MMDetection the names of panopticapi if that package is missing; called before it imports them."""
    from .panopticapi_replacement import replace_missing_panopticapi
    replace_missing_panopticapi()


def _register_packages(registry: types.ModuleType) -> None:
    """Let mmdet's registries import our packages at their first look-up, as they import mmdet's own."""
    for name, packages in REGISTERED_PACKAGES.items():
        host = getattr(registry, name)
        host._locations = [*host._locations, *(f'{__package__}.{package}' for package in packages)]
        host._imported = False  # mmdet's own may have been imported already


def host_versions() -> Dict[str, Optional[Tuple[str, str]]]:
    """Installed ``(distribution, version)`` of each host package, None if no distribution is installed."""
    found = {name: _installed(name) for name in HOST_DISTRIBUTIONS}
    return {name: next(iter(installed.items()), None) for name, installed in found.items()}


def _installed(name: str) -> Dict[str, str]:
    """Versions of all installed distributions that contain the package ``name``."""
    versions = {}
    for distribution, _ in HOST_DISTRIBUTIONS[name]:
        try:
            versions[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _check_versions() -> None:
    for name, distributions in HOST_DISTRIBUTIONS.items():
        installed = _installed(name)
        if not installed and importlib.util.find_spec(name) is None:
            raise ImportError(
                f'remax_mm needs the package `{name}`, which is not installed. {HOW_TO_INSTALL}')
        if len(installed) > 1:
            warnings.warn(
                f'`{name}` was installed by {" and ".join(installed)}, which overwrite each other\'s '
                'files. Uninstall all of them, then install one again.')
        for distribution, version in installed.items():
            lowest_version = dict(distributions)[distribution]
            if Version(version) < Version(lowest_version):
                warnings.warn(
                    f'remax_mm was tested with {distribution} >= {lowest_version}, but {version} is '
                    'installed.')


def prepare_launch(cfg: Any) -> None:
    """Allow ``torchrun`` with several processes on a machine without a GPU, which mmengine does not support.

    mmengine's launcher sets a CUDA device and wraps the model for this device. Without a GPU, this function
    connects the processes by gloo and sets the model wrapper in the config, so that the runner does neither.
    With a GPU or a single process, it does nothing.

    Args:
        cfg: the ``Config`` of a runner. Without a GPU, batch norms are not synchronized (``sync_bn``),
            because torch synchronizes them on GPUs only.

    Raises:
        RuntimeError: another launcher than ``pytorch`` without a GPU.
    """
    import torch.distributed
    from mmengine.device import get_device
    if cfg.launcher == 'none' or get_device() != 'cpu':
        return
    if cfg.launcher != 'pytorch':
        raise RuntimeError(
            f'Expected a GPU for --launcher {cfg.launcher}, but torch found none; on CPUs, start '
            'the processes with torchrun and --launcher pytorch')
    if not torch.distributed.is_initialized():
        seconds = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout')
        torch.distributed.init_process_group(
            'gloo', timeout=None if seconds is None else timedelta(seconds=seconds))
    wrapper = dict(broadcast_buffers=False, find_unused_parameters=cfg.get('find_unused_parameters', False))
    cfg.model_wrapper_cfg = dict(cfg.get('model_wrapper_cfg') or wrapper, device_ids=None)
    if cfg.get('sync_bn') is not None:
        warnings.warn('There is no GPU: each process uses the batch norm statistics of its own images.')
        cfg.sync_bn = None


class _MissingOps(types.ModuleType):
    """Replacement for ``mmcv._ext`` with all ops; a call raises an error that says what to install."""

    def __getattr__(self, op: str) -> Callable[..., None]:
        if op.startswith('__'):
            raise AttributeError(op)

        def missing_op(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError(
                f'The compiled op `{op}` is not available: this mmcv was installed without its '
                'ops (mmcv-lite, or a build without torch). Install the full `mmcv` package.')

        return missing_op


def _replace_missing_mmcv_ops() -> None:
    """Install a replacement for ``mmcv._ext`` if mmcv has no compiled ops.

    remax_mm calls no op, but ``mmdet.models`` imports ``mmcv.ops``, which imports ``mmcv._ext``.
    """
    if 'mmcv._ext' in sys.modules or has_mmcv_ops():
        return
    missing_ops = _MissingOps('mmcv._ext')
    # mmengine checks the spec to find out whether mmcv has ops. Without a spec, the check raises an error.
    # With a spec without loader, mmengine finds none; the fork finds ops, which has no effect on its users.
    missing_ops.__spec__ = ModuleSpec('mmcv._ext', loader=None)
    sys.modules['mmcv._ext'] = missing_ops


def has_mmcv_ops() -> bool:
    """Whether there is ``mmcv._ext``. ``find_spec('mmcv._ext')`` would import mmcv."""
    mmcv = importlib.util.find_spec('mmcv')
    folders = None if mmcv is None else mmcv.submodule_search_locations
    return folders is not None and PathFinder.find_spec('mmcv._ext', folders) is not None


def _allow_checkpoint_types(torch: types.ModuleType) -> None:
    """Allow the types in mmengine's checkpoints for ``torch.load(weights_only=True)``.

    This is the default since torch 2.6, and mmengine 0.10.7 uses the default, so it cannot load its own
    checkpoints: their message hub contains ``HistoryBuffer`` objects, which contain numpy arrays and a table
    of their own methods.
    """
    if Version(torch.__version__) >= Version('2.6'):
        torch.serialization.add_safe_globals(_checkpoint_types())


def _checkpoint_types() -> List[Any]:
    import numpy as np
    from mmengine.logging import HistoryBuffer

    def statistic(owner: type, name: str) -> Callable[..., Any]:
        # A pickled method is a call of `getattr`. To allow this builtin would give access to all attributes
        # of all allowed types, so only the buffer's four methods are allowed.
        if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
            return getattr(HistoryBuffer, name)
        raise pickle.UnpicklingError(f'Expected a statistic of HistoryBuffer, but got {owner}.{name}')

    core = np._core if hasattr(np, '_core') else np.core  # numpy 2 | numpy 1
    # A checkpoint has the module path of the numpy version that wrote it, which may be the other one.
    array_makers = [(getattr(core.multiarray, name), f'numpy.{folder}.multiarray.{name}')
                    for name in ('_reconstruct', 'scalar') for folder in ('core', '_core')]
    number_types = {type(np.dtype(code)) for code in np.typecodes['AllInteger'] + np.typecodes['Float'] + '?'}
    # With their paths, because the fork removes types without a path from torch's list after each load.
    named_types = [(kind, f'{kind.__module__}.{kind.__qualname__}')
                   for kind in (HistoryBuffer, np.ndarray, np.dtype, *number_types)]
    return [(statistic, 'builtins.getattr'), *array_makers, *named_types]


def _load_checkpoints_as_data(checkpoint: types.ModuleType) -> None:
    """Let no checkpoint run code, and report an unreadable one in one sentence.

    All of mmengine's, mmdet's and mmseg's loading goes through ``CheckpointLoader.load_checkpoint``. mmengine
    unpickles downloaded files without ``weights_only``, onedl-mmengine all files that ``weights_only``
    refuses, and ``Runner.resume`` executes ``meta['config']``. mmengine's own checkpoints have the config
    under another key, ``meta['cfg']``, which ``Runner.resume`` does not read.
    """
    loader = checkpoint.CheckpointLoader
    host_load = loader.load_checkpoint.__func__

    def load_checkpoint(cls: type,
                        filename: Union[str, Path],
                        map_location: Any = None,
                        logger: Any = 'current') -> Any:
        try:
            _check_records(filename)
            with _weights_only():
                content = host_load(cls, filename, map_location, logger)
        except Exception as error:
            if _is_failed_download(filename, error):
                raise DownloadError(filename, error) from None
            if not (_is_file(filename) or isinstance(error, pickle.UnpicklingError)):
                raise  # a missing file
            # torch's own messages propose to load the file with ``weights_only=False``.
            raise ValueError(
                f'Expected a checkpoint at {filename}, but {_why_unreadable(filename, error)}') from None
        if isinstance(content, dict) and isinstance(content.get('meta'), dict):
            content['meta'].pop('config', None)
        return content

    loader.load_checkpoint = classmethod(load_checkpoint)
    if hasattr(checkpoint, 'get_torch_safe_globals'):
        # onedl-mmengine allows `getattr` in addition to the types allowed above.
        setattr(checkpoint, 'get_torch_safe_globals', list)


class DownloadError(ConnectionError):
    """Weights could not be downloaded; the message says in one sentence what to do without a network."""

    def __init__(self, url: Union[str, Path], error: Exception) -> None:
        import torch
        file = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(str(url)).path).name
        reason = getattr(error, 'reason', None) or error
        super().__init__(
            f'Cannot download the weights {url} ({reason}): without network access, copy them to '
            f'{file}, or start from random weights with --cfg-options '
            'model.backbone.init_cfg=None')


def _is_failed_download(filename: Union[str, Path], error: Exception) -> bool:
    """Whether a download failed for another reason than a full disk."""
    is_network = isinstance(error, (OSError, HTTPException)) and getattr(error, 'errno', None) != errno.ENOSPC
    return is_network and str(filename).startswith(('http://', 'https://'))


def _refuse_configs_of_checkpoints(infer: types.ModuleType) -> None:
    """Let no inferencer of mmengine or mmdet build a model from the config inside a checkpoint.

    The config is executed as Python. Even a config of literals runs code, because the registries import
    whatever a ``type`` names.
    """
    host_init_model = infer.BaseInferencer._init_model

    def _init_model(self: Any, cfg: Any, weights: Optional[str], device: str = 'cpu') -> Any:
        if not cfg:
            raise ValueError(f'Expected a config for {weights}: the config inside a checkpoint is not used, '
                             'because it can run code')
        return host_init_model(self, cfg, weights, device)

    infer.BaseInferencer._init_model = _init_model


def _find_own_configs(config: Any) -> None:
    """Let mmengine find the configs of this package: ``_base_ = 'remax_mm::...'``, and ``get_config``.

    mmengine has a list of packages, looks for an editable installation in ``site-packages``, and takes the
    package of a config for the scope of its modules, which are registered in that of mmdet.
    """
    import mmengine.utils
    from mmengine.config import utils
    utils.MODULE2PACKAGE['remax_mm'] = 'remax_mm'
    host_path, host_config_path = config.get_installed_path, config.Config._get_cfg_path

    def get_installed_path(package: str) -> str:
        return str(Path(__file__).parent) if package == 'remax_mm' else host_path(package)

    def _get_cfg_path(path: str, filename: str) -> Tuple[str, Optional[str]]:
        found, scope = host_config_path(path, filename)
        return found, 'mmdet' if scope == 'remax_mm' else scope

    users: List[Any] = [mmengine.utils, config, *filter(None, [sys.modules.get('mmengine.hub.hub')])]
    for user in users:
        user.get_installed_path = get_installed_path
    config.Config._get_cfg_path = staticmethod(_get_cfg_path)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Let each ``torch.load`` use ``weights_only=True``, whatever its caller asks for.

    Below torch 2.6, ``weights_only`` cannot load mmengine's checkpoints, and nothing changes.
    """
    import torch
    if Version(torch.__version__) < Version('2.6'):
        yield
        return
    names = ('TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0]] = '1'
    try:
        yield
    finally:
        del os.environ[names[0]]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _is_file(filename: Union[str, Path]) -> bool:
    return Path(filename).expanduser().is_file()


def _check_records(filename: Union[str, Path]) -> None:
    """Compare the checksums in a local checkpoint, which torch does not do.

    Raises:
        ValueError: a record was changed after it was written.
    """
    if _is_file(filename) and zipfile.is_zipfile(Path(filename).expanduser()):
        with zipfile.ZipFile(Path(filename).expanduser()) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f'the checksum of {damaged} is wrong')


def _why_unreadable(filename: Union[str, Path], error: Exception) -> str:
    """Say why a checkpoint cannot be read: the end of a sentence."""
    if _is_file(filename):
        path = Path(filename).expanduser()
        with path.open('rb') as file:
            start = file.read(4)
        if not start:
            return 'it is empty'
        if not start.startswith((b'PK', b'\x80')):  # a zip file, or a pickle of torch before 1.6
            return 'torch.save did not write this file'
        if start.startswith(b'PK') and not zipfile.is_zipfile(path):
            return 'it is truncated'
    refused = re.search(r'GLOBAL (\S+)', str(error))
    if isinstance(error, pickle.UnpicklingError) and refused:
        return f'it has a `{refused[1]}`, which could run code and is not loaded'
    lines = re.findall(r'WeightsUnpickler error:\s*(.+)', str(error)) or str(error).splitlines() or ['']
    return f'it cannot be read ({type(error).__name__}: {lines[0]})'
