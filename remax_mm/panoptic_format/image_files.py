"""Reading of image files; a missing or damaged file is an error that names it."""
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional, Tuple

import cv2
import mmcv
import numpy as np
from mmengine import fileio
from PIL import Image

JPEG_START, JPEG_SCAN, JPEG_END = b'\xff\xd8', b'\xff\xda', b'\xff\xd9'

_EXIF_ORIENTATION = 0x0112
_ROTATED_BY_90_DEGREES = (5, 6, 7, 8)  # values of the EXIF orientation


class BrokenFileError(ValueError):
    """A file of a dataset is truncated, damaged or not an image; the message names the file."""


def read_image(path: str, backend_args: Optional[dict] = None) -> np.ndarray:
    """Read and decode an image.

    Args:
        path: The image, on any backend of mmengine's fileio.
        backend_args: Arguments of that backend.

    Returns:
        (H, W, 3) uint8 in the channel order B, G, R, rotated according to its EXIF data.

    Raises:
        FileNotFoundError: the file does not exist.
        BrokenFileError: the file cannot be decoded, or is incomplete.
    """
    try:
        content = fileio.get(path, backend_args=backend_args)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'Expected an image at {path}, but there is no such file') from error
    return decode_image(content, path)


def decode_image(content: bytes, path: str) -> np.ndarray:
    """Decode the bytes of an image file; see :func:`read_image`."""
    # Some decoders fill the missing part of a truncated JPEG with gray and report success.
    if content.startswith(JPEG_START) and content.rfind(JPEG_END) < content.rfind(JPEG_SCAN):
        raise BrokenFileError(f'Expected a complete JPEG, but {path} is truncated')
    try:
        image = mmcv.imfrombytes(content, backend='cv2')
    except cv2.error as error:
        raise BrokenFileError(f'Expected an image, but {path} cannot be decoded: {error}') from error
    if image is None:
        raise BrokenFileError(f'Expected an image, but {path} cannot be decoded')
    return image


def read_photo_size(path: Path) -> Tuple[int, int]:
    """Read the height and width that :func:`read_image` would return, without decoding the image.

    Raises:
        FileNotFoundError: the file does not exist.
        BrokenFileError: the file is not an image.
    """
    with open_image(path, 'a photo') as image:
        width, height = image.size
        is_rotated = image.getexif().get(_EXIF_ORIENTATION) in _ROTATED_BY_90_DEGREES
    return (width, height) if is_rotated else (height, width)


@contextmanager
def open_image(path: Path, kind: str) -> Iterator[Image.Image]:
    """Open an image with PIL, which keeps its palette and bit depth, and name the file in errors.

    Args:
        path: The image.
        kind: What the file should be, for the error message.

    Raises:
        FileNotFoundError: the file does not exist.
        BrokenFileError: the file is not an image, or decoding it inside the ``with`` block fails.
    """
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise FileNotFoundError(f'Expected {kind} at {path}, but there is no such file') from error
    except (OSError, SyntaxError) as error:
        raise BrokenFileError(f'Expected an image, but {path} cannot be decoded: {error}') from error
