"""Reading image files such that a broken one is told from a whole one, with its path."""
from typing import Optional

import cv2
import mmcv
import numpy as np
from mmengine import fileio

JPEG_START, JPEG_SCAN, JPEG_END = b'\xff\xd8', b'\xff\xda', b'\xff\xd9'


class BrokenFileError(ValueError):
    """A file of a dataset that is truncated, damaged or no image; the message names it."""


def read_image(path: str,
               backend_args: Optional[dict] = None,
               flag: str = 'color',
               backend: Optional[str] = None) -> np.ndarray:
    """Read and decode an image.

    Args:
        path: on any backend of mmengine's fileio.
        backend_args: arguments of that backend.
        flag, backend: of :func:`mmcv.imfrombytes`.

    Returns:
        (H, W, 3) uint8 in the order B, G, R, or as ``flag`` says.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFileError: it cannot be decoded, or ends too early.
    """
    try:
        content = fileio.get(path, backend_args=backend_args)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'Expected an image at {path}, but there is no such file') from error
    return decode_image(content, path, flag, backend)


def decode_image(content: bytes, path: str, flag: str = 'color', backend: Optional[str] = None) -> np.ndarray:
    """Decode the bytes of an image file; see :func:`read_image`."""
    # Some decoders fill up what a cut JPEG lacks with gray and call it done.
    if content.startswith(JPEG_START) and content.rfind(JPEG_END) < content.rfind(JPEG_SCAN):
        raise BrokenFileError(f'Expected a whole JPEG, but {path} ends in the middle of its data')
    try:
        image = mmcv.imfrombytes(content, flag=flag, backend=backend)
    except (OSError, SyntaxError, cv2.error) as error:
        raise BrokenFileError(f'Expected an image, but {path} cannot be decoded: {error}') from error
    if image is None:
        raise BrokenFileError(f'Expected an image, but {path} cannot be decoded')
    return image
