"""Reading of label maps: lossless images with one number per pixel, or several per pixel in channels."""
from pathlib import Path

import numpy as np

from .image_files import open_image


def read_label_map(path: Path) -> np.ndarray:
    """Read an image of one number per pixel; of an image with a palette, the numbers are the indices.

    Returns:
        (H, W) integers.

    Raises:
        FileNotFoundError: the file does not exist.
        BrokenFileError: the file is not an image, or is damaged.
        ValueError: the image has more than one channel.
    """
    values = read_channels(path)
    if values.ndim != 2:
        raise ValueError(f'Expected one number per pixel in {path}, but it has {values.shape[2]} channels')
    return values


def read_channels(path: Path) -> np.ndarray:
    """Read the values of an image as stored, without color conversion.

    Returns:
        Integers, (H, W) or (H, W, channels) in the order R, G, B.

    Raises:
        FileNotFoundError: the file does not exist.
        BrokenFileError: the file is not an image, or is damaged.
    """
    with open_image(path, 'an annotation') as image:
        values = np.asarray(image)
    return values.astype(np.uint8) if values.dtype == bool else values
