"""The images that an inferencer accepts: files, folders, URLs, arrays and PIL images."""
import time
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from typing import List, Optional, Sequence, Union
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps

from remax_mm.panoptic_format import read_image
from remax_mm.panoptic_format.image_files import decode_image

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')
MAX_DOWNLOAD_BYTES = 100 * 2**20
DOWNLOAD_SECONDS = 60.
"""Time limit of a whole download; a server that sends nothing for 10 seconds is an error as well."""

_SILENT_SECONDS = 10.
_CHUNK_BYTES = 2**16
_PIL_MODES = ('1', 'CMYK', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'YCbCr')  # 8 bits per channel

Image = Union[str, Path, np.ndarray, PIL.Image.Image]
Images = Union[Image, Sequence[Image]]


def list_images(images: Images) -> List[Image]:
    """All images of an argument; for a folder, the images in it, sorted by name.

    Args:
        images: A file, a folder, a URL (http or https), an array or PIL image as :func:`to_bgr` takes it, or
            a sequence of these.

    Raises:
        FileNotFoundError: a file or folder is missing, or a folder has no image.
        TypeError: an image is of another kind.
    """
    if isinstance(images, (np.ndarray, PIL.Image.Image)):
        return [images]
    if isinstance(images, (list, tuple)):
        return [image for item in images for image in list_images(item)]
    if not isinstance(images, (str, Path)):
        raise TypeError('Expected a file, a folder, a URL, an array, a PIL image or a list of these, but got '
                        f'{type(images).__name__}')
    if is_url(images):
        return [images]
    path = Path(images)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(
            f'Expected an image, a folder of images or a URL (http or https) at {images}, '
            'but there is none.')
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise FileNotFoundError(
            f'Expected images ({", ".join(IMAGE_SUFFIXES)}) in {path}, but there are none.')
    return [*files]


def load_image(image: Image) -> np.ndarray:
    """Load an image of :func:`list_images`: (H, W, 3) uint8 in the channel order B, G, R.

    Raises:
        FileNotFoundError, BrokenFileError: see :func:`read_image`.
        OSError: a download fails, or exceeds its size or time limit.
        TypeError, ValueError: an array or PIL image is not of the kinds of :func:`to_bgr`.
    """
    if not isinstance(image, (str, Path)):
        return to_bgr(image)
    if is_url(image):
        return decode_image(download(str(image)), str(image))
    return read_image(str(image))


def image_source(image: Image) -> Optional[str]:
    """Path or URL of an image, None for an array or PIL image."""
    return str(image) if isinstance(image, (str, Path)) else None


def image_name(source: str) -> str:
    """Name of an image without folder and suffix, from its path or URL."""
    return PurePosixPath(unquote(urlsplit(source).path)).stem if is_url(source) else Path(source).stem


def to_bgr(image: Union[np.ndarray, PIL.Image.Image]) -> np.ndarray:
    """Convert an array or a PIL image to (H, W, 3) uint8 in the channel order B, G, R.

    Args:
        image: A uint8 array: (H, W, 3) in the order B, G, R, as OpenCV reads it; (H, W) or (H, W, 1) gray; or
            (H, W, 4) in the order R, G, B, A. Or a PIL image with 8 bits per channel, which is rotated
            according to its EXIF data. Alpha is dropped, as for files.

    Raises:
        TypeError: the array is not uint8, or the PIL image has more than 8 bits per channel.
        ValueError: the array has another shape, or no pixels.
    """
    if isinstance(image, PIL.Image.Image):
        if image.mode not in _PIL_MODES:
            raise TypeError(f'Expected a PIL image with 8 bits per channel, but got the mode {image.mode}')
        rgb = np.asarray(PIL.ImageOps.exif_transpose(image).convert('RGB'))
        return np.ascontiguousarray(rgb[..., ::-1])
    if image.dtype != np.uint8:
        raise TypeError(f'Expected a uint8 image with values from 0 to 255, but got {image.dtype}')
    channels = 1 if image.ndim == 2 else image.shape[-1]
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or image.size == 0:
        raise ValueError('Expected an image of the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), but got '
                         f'{image.shape}')
    if channels == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image) if channels == 3 else cv2.cvtColor(image, cv2.COLOR_RGBA2BGR)


def is_url(image: Union[str, Path]) -> bool:
    """Whether a path is a URL that can be downloaded."""
    return str(image).lower().startswith(('http://', 'https://'))


def download(url: str, max_bytes: int = MAX_DOWNLOAD_BYTES, seconds: float = DOWNLOAD_SECONDS) -> bytes:
    """Download a file into memory.

    Args:
        url: http or https, also after redirects.
        max_bytes: Size limit.
        seconds: Time limit for everything.

    Raises:
        OSError: the server cannot be reached or refuses, or a limit is exceeded; the message names the URL.
    """
    deadline = time.monotonic() + seconds
    content = bytearray()
    try:
        with _OPENER.open(url, timeout=min(_SILENT_SECONDS, seconds)) as response:
            while chunk := response.read1(_CHUNK_BYTES):
                content += chunk
                if len(content) > max_bytes:
                    raise OSError(f'Expected at most {max_bytes} bytes at {url}, but there are more')
                if time.monotonic() > deadline:
                    raise OSError(f'Expected the download of {url} within {seconds:g} s, but it takes longer')
    except (urllib.error.URLError, TimeoutError) as error:
        raise OSError(f'Expected a file at {url}, but the download failed: {error}') from error
    return bytes(content)


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http and https only; urllib also follows those to ftp."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore
        if not is_url(newurl):
            raise OSError(f'Expected a redirect of {req.full_url} to http or https, but got {newurl}')
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_WebOnly)
