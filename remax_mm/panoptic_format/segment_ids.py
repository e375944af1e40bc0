"""Segment ids as the colors of a panoptic PNG: id = R + 256 G + 256² B.

Format: https://cocodataset.org/#format-data, section 4.
"""
from pathlib import Path
from typing import Optional, Tuple, Union

import cv2
import mmcv
import numpy as np

from .file_content import BrokenFileError, read_file
from .image_files import decode_image

VOID_ID = 0
"""Segment id of the unlabeled pixels of a panoptic PNG."""

MAX_ID = 256**3 - 1
"""Largest segment id that a color can encode."""

# https://www.w3.org/TR/png-3/#11IHDR
_PNG_START = b'\x89PNG\r\n\x1a\n'
_DEPTH_BYTE = 24
_COLOR_TYPES = (2, 3, 6)  # RGB, palette of RGB, RGB and alpha


def decode_segment_ids(png: np.ndarray) -> np.ndarray:
    """Convert the colors of a panoptic PNG to segment ids.

    Args:
        png: (H, W, 3) uint8 in OpenCV's channel order B, G, R.

    Returns:
        (H, W) int32 in [0, 2^24).
    """
    # The bytes R, G, B, A of a pixel form a little-endian number; its lower three bytes are the id.
    rgba = cv2.cvtColor(png, cv2.COLOR_BGR2RGBA)
    return rgba.view('<i4')[..., 0] & MAX_ID


def encode_segment_ids(ids: np.ndarray, path: Union[str, Path]) -> np.ndarray:
    """Convert segment ids to the colors of a panoptic PNG.

    Args:
        ids: (H, W) segment ids.
        path: The PNG that the ids are written to, for the error message.

    Returns:
        (H, W, 3) uint8 in OpenCV's channel order B, G, R.

    Raises:
        ValueError: an id is not in [0, 2^24).
    """
    if ids.size and not 0 <= ids.min() <= ids.max() <= MAX_ID:
        raise ValueError(f'Expected segment ids in [0, 2^24), but got {ids.min()} to {ids.max()} for {path}')
    return np.stack([ids // 256**2, ids // 256 % 256, ids % 256], axis=-1).astype(np.uint8)


def read_segment_ids(path: str,
                     backend_args: Optional[dict] = None,
                     size: Optional[Tuple[int, int]] = None) -> np.ndarray:
    """Read the segment ids of a panoptic PNG.

    Args:
        path: The PNG, on any backend of mmengine's fileio.
        backend_args: Arguments of that backend.
        size: Expected height and width; None accepts any.

    Returns:
        (H, W) int32 in [0, 2^24).

    Raises:
        FileNotFoundError: the file does not exist.
        BrokenFileError: the file is not a PNG of 8-bit colors, or is damaged or incomplete.
        ValueError: the PNG has another size.
    """
    content = read_file(path, 'a panoptic PNG', backend_args)
    if not content.startswith(_PNG_START):
        raise BrokenFileError(f'Expected a panoptic PNG, but {path} is no PNG')
    depth, color_type = content[_DEPTH_BYTE:_DEPTH_BYTE + 2].ljust(2, b'\0')
    if color_type not in _COLOR_TYPES or depth > 8:
        raise BrokenFileError(f'Expected a panoptic PNG of 8-bit RGB colors, but {path} has the color type '
                              f'{color_type} with {depth} bits')
    return decode_segment_ids(decode_image(content, path, size))


def write_segment_ids(path: Union[str, Path], ids: np.ndarray) -> None:
    """Write segment ids as a panoptic PNG.

    Args:
        path: The PNG; missing folders are created.
        ids: (H, W) integers in [0, 2^24).

    Raises:
        ValueError: an id is out of range.
        OSError: the file cannot be written.
    """
    if not mmcv.imwrite(encode_segment_ids(ids, path), str(path)):
        raise OSError(f'Cannot write the panoptic PNG {path}')
