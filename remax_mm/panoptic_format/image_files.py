"""Reading of image files: the header first, then all pixels; a missing or damaged file is an error."""
import io
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Tuple

import cv2
import mmcv
import numpy as np
import simplejpeg
from PIL import Image

from .file_content import BrokenFileError, check_regular, read_file

JPEG_START, JPEG_SCAN, JPEG_END = b'\xff\xd8', b'\xff\xda', b'\xff\xd9'
FORMATS = ('BMP', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')
"""Image formats that are read, as PIL names them."""

_EXIF_ORIENTATION = 0x0112
# OpenCV functions that undo each value of the EXIF orientation; the flips are those of cv2.flip.
_MIRROR_X, _TURN, _MIRROR_Y = 1, -1, 0
_FLIP_OF_ORIENTATION = {2: _MIRROR_X, 3: _TURN, 4: _MIRROR_Y, 6: _MIRROR_X, 7: _TURN, 8: _MIRROR_Y}
_ROTATED_BY_90_DEGREES = (5, 6, 7, 8)  # values of the EXIF orientation


class ImageHeader(NamedTuple):
    """What a file says about its image.

    Attributes:
        format: As PIL names it; one of ``FORMATS``, or ``MPO``, a JPEG with further pictures behind it.
        mode: PIL's mode, such as ``RGB``.
        size: Height and width as :func:`read_image` returns them.
        orientation: EXIF orientation in 1..8.
    """
    format: str
    mode: str
    size: Tuple[int, int]
    orientation: int


def read_image(path: str,
               backend_args: Optional[dict] = None,
               size: Optional[Tuple[int, int]] = None) -> np.ndarray:
    """Read and decode an image.

    The header is read first: no memory is allocated for an image with a wrong size, or with more pixels than
    PIL accepts (twice ``PIL.Image.MAX_IMAGE_PIXELS``, 179 million).

    Args:
        path: The image, on any backend of mmengine's fileio.
        backend_args: Arguments of that backend.
        size: Height and width that the JSON gives for it; None accepts any.

    Returns:
        (H, W, 3) uint8 in the channel order B, G, R, rotated according to its EXIF data.

    Raises:
        FileNotFoundError: the file does not exist.
        BrokenFileError: the path is not a regular file, or the file cannot be decoded, is damaged or
            incomplete, or has too many pixels.
        ValueError: the image has another size.
    """
    return decode_image(read_file(path, 'an image', backend_args), path, size)


def decode_image(content: bytes, path: str, size: Optional[Tuple[int, int]] = None) -> np.ndarray:
    """Decode the bytes of an image file; see :func:`read_image`."""
    header = read_header(content, path)
    if size is not None and header.size != tuple(size):
        raise ValueError(
            f'Expected {path} to have the size {tuple(size)} (height, width) of its entry in the '
            f'JSON or of its photo, but it is {header.size}')
    # simplejpeg gives the pixels of OpenCV, but also the decoder's warnings. It has no CMYK.
    if header.format in ('JPEG', 'MPO') and header.mode != 'CMYK':
        return _decode_jpeg(content, path, header.orientation)
    return _decode_other(content, path)


def _decode_jpeg(content: bytes, path: str, orientation: int) -> np.ndarray:
    """Decode a JPEG without CMYK; any warning of the decoder is an error."""
    try:
        image = simplejpeg.decode_jpeg(content, colorspace='BGR', strict=True)
    except ValueError as error:
        raise BrokenFileError(f'Expected an intact JPEG, but {path} is damaged: {error}') from error
    if orientation in _ROTATED_BY_90_DEGREES:
        image = cv2.transpose(image)
    flip = _FLIP_OF_ORIENTATION.get(orientation)
    return image if flip is None else cv2.flip(image, flip)


def _decode_other(content: bytes, path: str) -> np.ndarray:
    # OpenCV fills the missing part of a truncated JPEG with gray and reports success.
    if content.startswith(JPEG_START) and content.rfind(JPEG_END) < content.rfind(JPEG_SCAN):
        raise BrokenFileError(f'Expected a complete JPEG, but {path} is truncated')
    try:
        image = mmcv.imfrombytes(content, backend='cv2')
    except cv2.error as error:
        raise BrokenFileError(f'Expected an image, but {path} cannot be decoded: {error}') from error
    if image is None:
        raise BrokenFileError(f'Expected an image, but {path} cannot be decoded')
    return image


def read_header(content: bytes, path: str) -> ImageHeader:
    """Read the header of an image without decoding its pixels.

    Raises:
        BrokenFileError: the bytes are no image of the ``FORMATS``, or it has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return _describe(image)
    # PIL's parsers raise many types of errors on damaged files, such as struct.error.
    except Exception as error:
        raise BrokenFileError(f'Expected an image, but {path} cannot be decoded: {error}') from error


def _describe(image: Image.Image) -> ImageHeader:
    try:
        orientation = int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # OpenCV ignores damaged EXIF data, too
        orientation = 1
    if image.format == 'WEBP' and not _opencv_rotates_webp():
        orientation = 1
    # PIL has rotated the size of a TIFF already, in some versions.
    tags = getattr(image, 'tag_v2', None)
    width, height = image.size if tags is None else (tags[256], tags[257])
    size = (width, height) if orientation in _ROTATED_BY_90_DEGREES else (height, width)
    return ImageHeader(image.format or '', image.mode, size, orientation)


@lru_cache(maxsize=None)
def _opencv_rotates_webp() -> bool:
    """Whether the installed OpenCV applies the EXIF orientation of a WebP; 5.0 does, 4.12 does not."""
    exif, content = Image.Exif(), io.BytesIO()
    exif[_EXIF_ORIENTATION] = 6
    Image.new('RGB', (2, 1)).save(content, 'WEBP', exif=exif)
    decoded = cv2.imdecode(np.frombuffer(content.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    return decoded is not None and decoded.shape[0] == 2


def read_photo_size(path: Path) -> Tuple[int, int]:
    """Read the height and width that :func:`read_image` would return, without decoding the image.

    Raises:
        FileNotFoundError: the file does not exist.
        BrokenFileError: the file is not an image.
    """
    with open_image(path, 'a photo') as image:
        return _describe(image).size


@contextmanager
def open_image(path: Path, kind: str) -> Iterator[Image.Image]:
    """Open an image with PIL, which keeps its palette and bit depth, and name the file in errors.

    Args:
        path: The image.
        kind: What the file should be, for the error message.

    Raises:
        FileNotFoundError: the file does not exist.
        BrokenFileError: the file is not an image, has too many pixels, or decoding it inside the ``with``
            block fails.
    """
    try:
        check_regular(str(path), kind)
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise FileNotFoundError(f'Expected {kind} at {path}, but there is no such file') from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BrokenFileError(f'Expected an image, but {path} cannot be decoded: {error}') from error
