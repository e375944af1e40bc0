"""Reading of whole files from any storage; on a local disk, only regular files of a sane size."""
import os
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
    """
    backend = fileio.get_file_backend(path, backend_args=backend_args, enable_singleton=True)
    try:
        if isinstance(backend, LocalBackend):
            check_regular(path, kind, max_bytes)
        return backend.get(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f'Expected {kind} at {path}, but there is no such file') from error


def check_regular(path: str, kind: str, max_bytes: int = MAX_IMAGE_BYTES) -> None:
    """Raise BrokenFileError if a local path is no regular file or a too large one."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise BrokenFileError(f'Expected {kind}, but {path} is not a regular file')
    if status.st_size > max_bytes:
        raise BrokenFileError(
            f'Expected {kind} of at most {max_bytes} bytes, but {path} has {status.st_size}')
