"""Parallel work on all images of a dataset."""
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Callable, Iterator, Sequence, TypeVar

import cv2
from mmengine.utils import track_iter_progress

Image = TypeVar('Image')
Result = TypeVar('Result')


def map_images(function: Callable[[Image], Result],
               images: Sequence[Image],
               processes: int = 1) -> Iterator[Result]:
    """Apply a function to each image, and show a progress bar on the standard error stream.

    Args:
        function: Takes one image. With several processes, the function, the images and the results must be
            picklable.
        images: Inputs of the function.
        processes: Number of processes; 1 runs in this process.

    Returns:
        The results, in the order of the images.

    Raises:
        ValueError: ``processes`` is less than 1.
    """
    if processes < 1:
        raise ValueError(f'Expected at least one process, but got {processes}')
    if processes == 1:
        yield from track_iter_progress((map(function, images), len(images)), file=sys.stderr)
        return
    # The processes already use all cores; OpenCV's threads would compete with them.
    with ProcessPoolExecutor(processes, initializer=cv2.setNumThreads, initargs=(0, )) as pool:
        results = pool.map(function, images, chunksize=8)
        yield from track_iter_progress((results, len(images)), file=sys.stderr)
