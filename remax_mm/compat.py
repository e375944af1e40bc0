"""Differences between the OpenMMLab stacks; only ``checkpoint_loading.py`` depends on the stack as well.

Two stacks have the same import names: the original packages (mmengine, mmcv, mmdet, mmsegmentation) and their
maintained forks (onedl-mmengine, onedl-mmcv, onedl-mmdetection, onedl-mmsegmentation).
"""
import importlib.util
import sys
import types
import warnings
from datetime import timedelta
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from packaging.version import Version

from .checkpoint_loading import (allow_checkpoint_types, load_checkpoints_as_data,
                                 refuse_configs_of_checkpoints)
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
    after_import('torch', allow_checkpoint_types)
    after_import('mmengine.config.config', _find_own_configs)
    after_import('mmengine.runner.checkpoint', load_checkpoints_as_data)
    after_import('mmengine.infer.infer', refuse_configs_of_checkpoints)
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
