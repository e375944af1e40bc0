"""Checkpoints are loaded as data that cannot run code; a file that cannot be read gives one clear error."""
import errno
import os
import pickle
import re
import types
import zipfile
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Union
from urllib.parse import urlparse

from packaging.version import Version


def allow_checkpoint_types(torch: types.ModuleType) -> None:
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


def load_checkpoints_as_data(checkpoint: types.ModuleType) -> None:
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


def refuse_configs_of_checkpoints(infer: types.ModuleType) -> None:
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
