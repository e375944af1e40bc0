"""Reading of whole files from any storage; on a local disk, only regular files of a sane size."""
import os
import posixpath
import stat
from typing import Optional

from mmengine import fileio
from mmengine.fileio.backends import LocalBackend

MAX_IMAGE_BYTES = 2**30
"""Size limit of a local image file; a sparse file can be larger than the memory."""


class BrokenFileError(ValueError):
    """A file of a dataset is truncated, damaged or of another kind than expected; the message names it."""


def read_file(path: str,
              kind: str,
              backend_args: Optional[dict] = None,
              max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
    """Read a file.

    A FIFO or a device could block or fill the memory, so a local path must be a regular file.

    Args:
        path: The file, on any backend of mmengine's fileio.
        kind: What the file should be, for error messages.
        backend_args: Arguments of that backend.
        max_bytes: Size limit of a local file.

    Raises:
        FileNotFoundError: the file does not exist.
        BrokenFileError: the path is a folder, a FIFO, a socket or a device, or the file is too large.
        OSError: the storage does not answer.
    """
    backend = fileio.get_file_backend(path, backend_args=backend_args, enable_singleton=True)
    missing = f'Expected {kind} at {path}, but there is no such file'
    try:
        if isinstance(backend, LocalBackend):
            check_regular(path, kind, max_bytes)
        content = backend.get(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(missing) from error
    except OSError as error:  # an HTTPError does not tell the address
        if isinstance(backend, LocalBackend):
            raise
        if getattr(error, 'code', None) == 404:
            raise FileNotFoundError(missing) from error
        raise OSError(f'Cannot read {kind} at {path}: {error}') from error
    if content is None:  # lmdb
        raise FileNotFoundError(missing)
    return content


def join_path(folder: str, name: str, backend_args: Optional[dict] = None) -> str:
    """Path of a file in a folder, also for backends that know no folders (lmdb, HTTP)."""
    backend = fileio.get_file_backend(folder, backend_args=backend_args, enable_singleton=True)
    return getattr(backend, 'join_path', posixpath.join)(folder, name)


def check_regular(path: str, kind: str, max_bytes: int = MAX_IMAGE_BYTES) -> None:
    """Raise BrokenFileError if a local path is no regular file or a too large one."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise BrokenFileError(f'Expected {kind}, but {path} is not a regular file')
    if status.st_size > max_bytes:
        raise BrokenFileError(
            f'Expected {kind} of at most {max_bytes} bytes, but {path} has {status.st_size}')
