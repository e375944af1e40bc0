"""Reading annotation that is one number per pixel, and the sizes of photos."""
from pathlib import Path
from typing import Tuple

import numpy as np
from PIL import Image

from .image_files import BrokenFileError

_ORIENTATION = 0x0112  # EXIF tag; its values from 5 on turn the photo by 90 degrees
_TURNED = (5, 6, 7, 8)


def read_label_map(path: Path) -> np.ndarray:
    """Read a PNG (or any other lossless image) of one number per pixel; a palette stays what it is, indices.

    Returns:
        (H, W) integers.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFileError: it is no image, or damaged.
        ValueError: it has more than one channel.
    """
    values = read_channels(path)
    if values.ndim != 2:
        raise ValueError(f'Expected one number per pixel in {path}, but it has {values.shape[2]} channels')
    return values


def read_channels(path: Path) -> np.ndarray:
    """Read an image as it is stored, (H, W) or (H, W, channels); errors as in :func:`read_label_map`."""
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'Expected an annotation at {path}, but there is no such file') from error
    except (OSError, SyntaxError) as error:
        raise BrokenFileError(f'Expected an image, but {path} cannot be decoded: {error}') from error
    return values.astype(np.uint8) if values.dtype == bool else values


def read_photo_size(path: Path) -> Tuple[int, int]:
    """Height and width of a photo as MMCV loads it, turned as its EXIF data says.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFileError: it is no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION) in _TURNED
    except FileNotFoundError as error:
        raise FileNotFoundError(f'Expected a photo at {path}, but there is no such file') from error
    except (OSError, SyntaxError) as error:
        raise BrokenFileError(f'Expected an image, but {path} cannot be decoded: {error}') from error
    return (width, height) if turned else (height, width)
