"""The PNG side of the COCO panoptic format: segment ids as colors, and segments with ids from 1 on.

Format: https://cocodataset.org/#format-data, section 4; id = R + 256 G + 256^2 B, 0 is unlabeled.
"""
from pathlib import Path
from typing import Optional, Union

import cv2
import mmcv
import numpy as np

from .image_files import read_image

VOID_ID = 0
"""Segment id of unlabeled pixels in a panoptic PNG."""


def read_segment_ids(path: str, backend_args: Optional[dict] = None) -> np.ndarray:
    """Read the segment ids of a panoptic PNG.

    Args:
        path: The PNG, on any backend of mmengine's fileio.
        backend_args: Arguments of that backend.

    Returns:
        (H, W) int32 in [0, 2^24).

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFileError: the file is no image, or not a whole one.
    """
    return decode_segment_ids(read_image(path, backend_args))


def write_segment_ids(path: Union[str, Path], ids: np.ndarray) -> None:
    """Write (H, W) segment ids in [0, 2^24) as a panoptic PNG.

    Raises:
        ValueError: an id is out of range.
        OSError: the file cannot be written.
    """
    if not mmcv.imwrite(encode_segment_ids(ids, path), str(path)):
        raise OSError(f'Cannot write the panoptic PNG {path}')


def decode_segment_ids(png: np.ndarray) -> np.ndarray:
    """Ids R + 256 G + 256² B, (H, W) int32, of a (H, W, 3) uint8 PNG in OpenCV's channel order B, G, R."""
    # The bytes R, G, B, A of a pixel are a little-endian number with the id in its lower three.
    rgba = cv2.cvtColor(png, cv2.COLOR_BGR2RGBA)
    return rgba.view('<i4')[..., 0] & 0xFFFFFF


def encode_segment_ids(ids: np.ndarray, path: Union[str, Path]) -> np.ndarray:
    """Segment ids R + 256 G + 256² B as (H, W, 3) uint8 in OpenCV's channel order B, G, R.

    Raises:
        ValueError: an id is not in [0, 2^24); names ``path``, the PNG that the ids are for.
    """
    if ids.size and not 0 <= ids.min() <= ids.max() < 256**3:
        raise ValueError(f'Expected segment ids in [0, 2^24), but got {ids.min()} to {ids.max()} for {path}')
    return np.stack([ids // 256**2, ids // 256 % 256, ids % 256], axis=-1).astype(np.uint8)
