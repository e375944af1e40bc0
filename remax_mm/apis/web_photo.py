"""What the web page does with a photo: read it within limits, segment it in time, select its segments."""
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any, Collection, Dict, List, NamedTuple, Tuple

import cv2
import numpy as np

from remax_mm.panoptic_format import read_file
from remax_mm.panoptic_format.image_files import decode_image, read_header
from .panoptic_inferencer import PanopticInferencer
from .panoptic_result import PanopticResult, keep_segments, save_overlay, save_segments


class Limits(NamedTuple):
    """What a visitor of the page may ask for.

    Attributes:
        num_bytes: Size of a photo as a file.
        num_pixels: Pixels of a photo.
        side: Longer side of the photo that is segmented, in pixels; larger ones are scaled down.
        seconds: Time for a photo, including the wait for those of other visitors.
    """
    num_bytes: int = 20 * 2**20
    num_pixels: int = 50_000_000
    side: int = 2048
    seconds: float = 60.


class Photo(NamedTuple):
    """A segmented photo.

    Attributes:
        name: Name of its file, without folder and suffix.
        image: (H, W, 3) uint8 RGB.
        result: Its segments.
        folder: Folder of the files for download.
    """
    name: str
    image: np.ndarray
    result: PanopticResult
    folder: str


def read_photo(path: str, limits: Limits) -> np.ndarray:
    """Read a photo of a visitor; the limits are checked before it is decoded.

    Returns:
        (H, W, 3) uint8 BGR.

    Raises:
        BrokenFileError: the file is too large or not an image.
        ValueError: the photo has too many pixels.
    """
    name = Path(path).name
    content = read_file(path, 'a photo', max_bytes=limits.num_bytes)
    height, width = read_header(content, name).size
    if height * width > limits.num_pixels:
        raise ValueError(f'Expected a photo of at most {limits.num_pixels} pixels, but {name} has '
                         f'{width} x {height}')
    image = decode_image(content, name)
    scale = limits.side / max(height, width)
    if scale < 1:
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image


class PhotoSegmenter:
    """Segments one photo after the other, each within a time limit.

    Args:
        inferencer: The model.
        limits: See :class:`Limits`.
    """

    def __init__(self, inferencer: PanopticInferencer, limits: Limits) -> None:
        self.inferencer = inferencer
        self.limits = limits
        self._worker = ThreadPoolExecutor(max_workers=1)

    def __call__(self, path: str) -> Tuple[np.ndarray, PanopticResult]:
        """Read and segment a photo.

        Returns:
            The photo (H, W, 3) uint8 RGB and its segments.

        Raises:
            ValueError: see :func:`read_photo`.
            TimeoutError: it takes too long, or those before it do.
        """
        task = self._worker.submit(self._segment, path)
        try:
            return task.result(timeout=self.limits.seconds)
        except FutureTimeoutError as error:
            task.cancel()  # if it has not started yet
            raise TimeoutError(
                f'Expected the segments within {self.limits.seconds:g} s, but it takes longer; '
                'please try a smaller photo, or later') from error

    def _segment(self, path: str) -> Tuple[np.ndarray, PanopticResult]:
        image = read_photo(path, self.limits)
        result, = self.inferencer.stream(image)
        return np.ascontiguousarray(image[..., ::-1]), result


def count_classes(result: PanopticResult) -> List[Tuple[str, str]]:
    """Label, ``person (3)``, and name of each class of a result, those with the largest area first."""
    area: Dict[str, int] = {}
    number: Dict[str, int] = {}
    for segment in result.segments_info:
        name = segment['class_name']
        area[name] = area.get(name, 0) + segment['area']
        number[name] = number.get(name, 0) + 1
    return [(f'{name} ({number[name]})', name) for name in sorted(area, key=area.__getitem__, reverse=True)]


def choose_segments(result: PanopticResult, classes: Collection[str], min_score: float,
                    min_area: float) -> PanopticResult:
    """The segments of some classes that reach a score and an area.

    Args:
        classes: Names of the classes.
        min_score: In [0, 1]; a segment without a score reaches any.
        min_area: In percent of the image.
    """
    pixels = result.segment_map.size
    return keep_segments(result, [
        segment['id'] for segment in result.segments_info
        if segment['class_name'] in classes and (segment['score'] is None or segment['score'] >= min_score)
        and 100 * segment['area'] >= min_area * pixels
    ])


TABLE_HEADER = ['id', 'class', 'kind', 'score', 'area %', 'x, y, width, height']


def list_segments(result: PanopticResult) -> List[List[Any]]:
    """A row of the ``TABLE_HEADER`` for each segment, the largest first."""
    return [[
        segment['id'], segment['class_name'], 'thing' if segment['is_thing'] else 'stuff',
        '' if segment['score'] is None else f'{segment["score"]:.2f}',
        f'{100 * segment["area"] / result.segment_map.size:.1f}', ', '.join(map(str, segment['bbox']))
    ] for segment in sorted(result.segments_info, key=lambda segment: -segment['area'])]


def write_downloads(photo: Photo, result: PanopticResult, overlay: np.ndarray) -> List[Path]:
    """Write the overlay, the segment ids and the segments; returns the three files.

    Args:
        photo: Its name and folder are those of the files.
        result: The segments to write.
        overlay: (H, W, 3) uint8 RGB.
    """
    return [save_overlay(overlay, photo.folder, photo.name), *save_segments(result, photo.folder, photo.name)]
