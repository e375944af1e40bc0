"""Work that is done for each image of a dataset, shared out among processes."""
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
    """Results of a function of each image, in order, with a progress bar on the standard error stream.

    Args:
        function: takes one image; for several processes it, the images and the results must be picklable.
        images: what the function takes.
        processes: 1 works in this process.

    Raises:
        ValueError: ``processes`` is less than 1.
    """
    if processes < 1:
        raise ValueError(f'Expected at least one process, but got {processes}')
    if processes == 1:
        yield from track_iter_progress((map(function, images), len(images)), file=sys.stderr)
        return
    # The processes share the cores already; OpenCV's own threads would only fight over them.
    with ProcessPoolExecutor(processes, initializer=cv2.setNumThreads, initargs=(0, )) as pool:
        results = pool.map(function, images, chunksize=8)
        yield from track_iter_progress((results, len(images)), file=sys.stderr)
