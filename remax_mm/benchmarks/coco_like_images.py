"""Drawn images with panoptic annotations in COCO's layout and of COCO's size."""
from functools import partial
from pathlib import Path
from typing import Tuple

import cv2
import numpy as np

from remax_mm.datasets import CocoPanopticMapDataset
from remax_mm.panoptic_format import ConvertedImage, SegmentLabel, write_split

METAINFO = CocoPanopticMapDataset.METAINFO
NUM_THINGS, NUM_STUFF = len(METAINFO['thing_classes']), len(METAINFO['stuff_classes'])
HEIGHT, WIDTH = 480, 640


def draw_coco_like(folder: Path, split: str, num_images: int, segments: Tuple[int, int]) -> None:
    """Write images of 640x480 pixels in COCO's layout; two thirds of their segments are things.

    Args:
        folder: Folder for ``<split>/*.jpg``, ``annotations/panoptic_<split>/*.png`` and
            ``annotations/panoptic_<split>.json``.
        split: Name of the split.
        num_images: Number of images.
        segments: Fewest and most segments of an image.
    """
    (folder / split).mkdir(parents=True)
    categories = [
        dict(id=label + 1, name=name, isthing=int(label < NUM_THINGS))
        for label, name in enumerate(METAINFO['classes'])
    ]
    write_split(folder / 'annotations' / f'panoptic_{split}.json',
                partial(_draw_image, folder / split, segments), range(1, num_images + 1), categories)


def _draw_image(folder: Path, segments: Tuple[int, int], number: int) -> ConvertedImage:
    rng = np.random.default_rng(number)
    count = rng.integers(segments[0], segments[1] + 1)

    # Cells around random points with wavy borders. Each has its own color, with one texture over all.
    waves = cv2.GaussianBlur(np.dstack([_natural_noise(rng) for _ in range(2)]), (0, 0), 6)
    places = np.mgrid[:HEIGHT, :WIDTH].transpose(1, 2, 0) + 25 * waves
    cell = np.zeros((HEIGHT, WIDTH), np.int32)
    nearest = np.full((HEIGHT, WIDTH), np.inf)
    for index in range(count):
        distance = ((places - rng.random(2) * (HEIGHT, WIDTH))**2).sum(-1) * rng.uniform(0.5, 2)
        cell[distance < nearest] = index
        nearest = np.minimum(nearest, distance)
    texture = np.dstack([_natural_noise(rng) for _ in range(3)])
    image = (rng.uniform(60, 190, (count, 3))[cell] + 40 * texture).clip(0, 255).astype(np.uint8)
    cv2.imwrite(str(folder / f'{number:012d}.jpg'), image, [cv2.IMWRITE_JPEG_QUALITY, 92])

    things, stuff = rng.integers(NUM_THINGS, size=count), NUM_THINGS + rng.permutation(count) % NUM_STUFF
    category_ids = np.where(rng.random(count) < 2 / 3, things, stuff) + 1
    labels = [SegmentLabel(1000 + 7919 * i, category_ids[i]) for i in np.unique(cell).tolist()]
    return ConvertedImage(number, f'{number:012d}.jpg', f'{number:012d}.png', 1000 + 7919 * cell, labels)


def _natural_noise(rng: np.random.Generator) -> np.ndarray:
    """Noise (H, W) with standard deviation 1, whose amplitude decreases with the frequency as in photos."""
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH))
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((HEIGHT, WIDTH))) / frequency, (HEIGHT, WIDTH))
    return noise / noise.std()
