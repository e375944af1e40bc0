"""The only file that knows which OpenMMLab stack runs.

Two stacks give the same import names: the original packages (mmengine, mmcv, mmdet, mmsegmentation) and
their maintained forks (onedl-mmengine, onedl-mmcv, onedl-mmdetection, onedl-mmsegmentation).
"""
import importlib.util
import pickle
import sys
import types
import warnings
from importlib import metadata
from typing import Any, Dict, List, Optional, Tuple

# import name -> ((distribution, lowest version that was tried), ...)
HOST_DISTRIBUTIONS: Dict[str, Tuple[Tuple[str, str], ...]] = {
    'mmengine': (('mmengine', '0.10.4'), ('onedl-mmengine', '0.10.8')),
    'mmcv': (('mmcv', '2.0.1'), ('mmcv-lite', '2.0.1'), ('onedl-mmcv', '2.3.0')),
    'mmdet': (('mmdet', '3.2.0'), ('onedl-mmdetection', '3.4.0')),
    'mmseg': (('mmsegmentation', '1.2.0'), ('onedl-mmsegmentation', '1.3.0')),
}


def host_versions() -> Dict[str, Optional[Tuple[str, str]]]:
    """Installed ``(distribution, version)`` of each host package, None where it is missing."""
    found: Dict[str, Optional[Tuple[str, str]]] = {}
    for name, candidates in HOST_DISTRIBUTIONS.items():
        found[name] = None
        for distribution, _ in candidates:
            try:
                found[name] = (distribution, metadata.version(distribution))
                break
            except metadata.PackageNotFoundError:
                continue
    return found


def prepare_host_stack() -> None:
    """Make the installed host stack importable and its checkpoints safely loadable.

    Raises:
        ImportError: mmengine, mmcv or mmdet is not installed.
    """
    _check_versions()
    _stand_in_for_mmcv_ops()
    _allow_checkpoint_types()


def _check_versions() -> None:
    from packaging.version import Version

    for name, installed in host_versions().items():
        if installed is None:
            if importlib.util.find_spec(name) is None:
                raise ImportError(
                    f'remax_mm needs the package `{name}`, which is not installed. Install one stack: '
                    '`pip install remax_mm[openmmlab]` or `pip install remax_mm[onedl]`.')
            continue
        distribution, version = installed
        floor = dict(HOST_DISTRIBUTIONS[name])[distribution]
        if Version(version) < Version(floor):
            warnings.warn(f'remax_mm was tried with {distribution} >= {floor}, but {version} is installed.')


class _MissingOps(types.ModuleType):
    """Stand-in for ``mmcv._ext``: every op is there, and every call says which package brings it."""

    def __getattr__(self, op: str) -> Any:
        if op.startswith('__'):
            raise AttributeError(op)

        def missing_op(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError(f'The compiled op `{op}` is not available: this mmcv was installed without its '
                               'ops (mmcv-lite, or a build without torch). Install the full `mmcv` package.')

        return missing_op


def _stand_in_for_mmcv_ops() -> None:
    """Put a stand-in at ``mmcv._ext`` where mmcv has no compiled ops.

    Nothing of ours calls an op, but ``mmdet.models`` imports ``mmcv.ops``, which imports ``mmcv._ext``.
    """
    if 'mmcv._ext' in sys.modules or importlib.util.find_spec('mmcv._ext') is not None:
        return
    sys.modules['mmcv._ext'] = _MissingOps('mmcv._ext')


def _allow_checkpoint_types() -> None:
    """Allow the types of mmengine's own checkpoints under ``torch.load(weights_only=True)``.

    From torch 2.6 on that is the default, and mmengine 0.10.7 passes nothing else, so that it could not
    load a checkpoint which it wrote itself: the message hub inside keeps ``HistoryBuffer`` objects, which
    hold numpy arrays and a table of their own methods.
    """
    import torch
    if not hasattr(torch.serialization, 'add_safe_globals'):
        return
    torch.serialization.add_safe_globals(_checkpoint_types())


def _checkpoint_types() -> List[Any]:
    import numpy as np
    from mmengine.logging import HistoryBuffer
    core = np._core if hasattr(np, '_core') else np.core  # numpy 2 | numpy 1
    array_types = [core.multiarray._reconstruct, core.multiarray.scalar, np.ndarray, np.dtype]
    number_types = [type(np.dtype(name)) for name in ('float32', 'float64', 'int32', 'int64', 'bool')]


    def statistic(owner: type, name: str) -> Any:
        # A pickled method is a call of `getattr`. That builtin itself would open the door to any attribute
        # of any allowed type, so only the buffer's four methods pass.
        if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
            return getattr(HistoryBuffer, name)
        raise pickle.UnpicklingError(f'Expected a statistic of HistoryBuffer, but got {owner}.{name}')

    return [HistoryBuffer, (statistic, 'builtins.getattr'), *array_types, *number_types]
