#!/usr/bin/env python
"""Time the training pipeline against MMDetection's, in images per second and their ratio within one run.

    python tools/analysis_tools/benchmark_pipeline.py
    python tools/analysis_tools/benchmark_pipeline.py --data data/coco --split val2017

One process does what a worker of a data loader does, from files to packed tensors. Both sides load the same
images, resize them to the same random scales, pad, crop and flip, as configs/_base_/datasets says for a crop.
MMDetection's side has the steps of its configs of Mask2Former. They need panopticapi, which is not on PyPI;
the one function that is called, `rgb2id`, is written out here. The pipelines take turns.
"""
import argparse
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope

from remax_mm.datasets import CocoPanopticMapDataset
from remax_mm.panoptic_format import ConvertedImage, SegmentLabel, write_split

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'datasets'
CONFIG_OF_CROP = {641: CONFIGS / 'coco_panoptic_641.py', 1281: CONFIGS / 'coco_panoptic.py'}
METAINFO = CocoPanopticMapDataset.METAINFO
NUM_THINGS, NUM_STUFF = len(METAINFO['thing_classes']), len(METAINFO['stuff_classes'])


class Speed(NamedTuple):
    """Images per second of MMDetection, of ours without and with copy-paste, and ours against MMDetection's.

    Medians over the repeats; a ratio is taken within each repeat.
    """
    mmdet: float
    ours: float
    ours_copy_paste: float
    ratio: float
    ratio_copy_paste: float


def draw_coco_like(folder: Path, split: str, num_images: int, segments: Tuple[int, int]) -> None:
    """Write images of 640x480 pixels in COCO's layout, two thirds of whose segments are things.

    Args:
        folder: Gets ``<split>/*.jpg``, ``annotations/panoptic_<split>/*.png`` and the JSON beside that.
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
    height, width = 480, 640

    # Cells around random points, with borders that wave; each has a color of its own under one texture.
    waves = cv2.GaussianBlur(np.dstack([_natural_noise(rng, height, width) for _ in range(2)]), (0, 0), 6)
    places = np.mgrid[:height, :width].transpose(1, 2, 0) + 25 * waves
    cell = np.zeros((height, width), np.int32)
    nearest = np.full((height, width), np.inf)
    for index in range(count):
        distance = ((places - rng.random(2) * (height, width))**2).sum(-1) * rng.uniform(0.5, 2)
        cell[distance < nearest] = index
        nearest = np.minimum(nearest, distance)
    texture = np.dstack([_natural_noise(rng, height, width) for _ in range(3)])
    image = (rng.uniform(60, 190, (count, 3))[cell] + 40 * texture).clip(0, 255).astype(np.uint8)
    cv2.imwrite(str(folder / f'{number:012d}.jpg'), image, [cv2.IMWRITE_JPEG_QUALITY, 92])

    things, stuff = rng.integers(NUM_THINGS, size=count), NUM_THINGS + rng.permutation(count) % NUM_STUFF
    category_ids = np.where(rng.random(count) < 2 / 3, things, stuff) + 1
    labels = [SegmentLabel(1000 + 7919 * i, category_ids[i]) for i in np.unique(cell).tolist()]
    return ConvertedImage(number, f'{number:012d}.jpg', f'{number:012d}.png', 1000 + 7919 * cell, labels)


def _natural_noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(H, W) noise of unit spread whose amplitude falls with the frequency, as in photos."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / frequency, (height, width))
    return noise / noise.std()


def measure_speed(data: Path, split: str, crop: int, args: argparse.Namespace) -> Speed:
    """Time three pipelines over the first images of a split in COCO's layout, taking turns."""
    steps = Config.fromfile(CONFIG_OF_CROP[crop]).train_pipeline
    if not args.color_policy:
        steps = _without(steps, 'ColorPolicy')
        paste = next(step for step in steps if step.type == 'PanopticCopyPaste')
        paste.partner_pipeline = _without(paste.partner_pipeline, 'ColorPolicy')
    plain = _without(steps, 'PanopticCopyPaste')

    stand_in_for_panopticapi()
    pipelines = [('CocoPanopticDataset', to_mmdet(plain)), ('CocoPanopticMapDataset', plain),
                 ('CocoPanopticMapDataset', steps)]
    datasets = [build_dataset(name, pipeline, data, split, args.num_images) for name, pipeline in pipelines]
    for dataset in datasets:
        dataset[0]
    speeds = np.array([[_images_per_second(dataset, seed) for dataset in datasets]
                       for seed in range(args.repeats)])
    ratios = speeds[:, 1:] / speeds[:, :1]
    return Speed(*np.median(speeds, 0).tolist(), *np.median(ratios, 0).tolist())


def _without(steps: Sequence[dict], name: str) -> List[dict]:
    return [step for step in steps if step.type != name]


def to_mmdet(steps: Sequence[dict]) -> List[dict]:
    """The same augmentation with the steps of mmdet's configs of Mask2Former."""
    size = next(step.crop_size for step in steps if step.type == 'RandomCrop')
    of_mmdet = dict(
        LoadImageStrict=dict(type='LoadImageFromFile'),
        LoadPanopticMap=dict(type='LoadPanopticAnnotations', with_bbox=True, with_mask=True, with_seg=True),
        RandomPad=dict(type='Pad', size=size),
        RandomCrop=dict(type='RandomCrop', crop_size=size, recompute_bbox=True, allow_negative_crop=True),
        PackPanopticInputs=dict(type='PackDetInputs'))
    return [of_mmdet.get(step.type, step) for step in steps]


def stand_in_for_panopticapi() -> None:
    """Give mmdet's loader the `panopticapi.utils.rgb2id` that it imports: ids R + 256 G + 256² B."""

    def rgb2id(color: np.ndarray) -> np.ndarray:
        color = color.astype(np.int32)
        return color[..., 0] + 256 * color[..., 1] + 256**2 * color[..., 2]

    module = ModuleType('panopticapi')
    module.utils = SimpleNamespace(rgb2id=rgb2id)
    sys.modules['panopticapi'] = module


def build_dataset(name: str, pipeline: List[dict], data: Path, split: str, num_images: int) -> BaseDataset:
    return DATASETS.build(
        dict(
            type=name,
            data_root=str(data),
            ann_file=f'annotations/panoptic_{split}.json',
            data_prefix=dict(img=f'{split}/', seg=f'annotations/panoptic_{split}/'),
            indices=num_images,
            pipeline=pipeline))


def _images_per_second(dataset: BaseDataset, seed: int) -> float:
    np.random.seed(seed)
    start = time.perf_counter()
    for index in range(len(dataset)):
        dataset[index]
    return len(dataset) / (time.perf_counter() - start)


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help="folder in COCO's layout (default: images are drawn)")
    parser.add_argument('--split', default='val2017', help='of --data (default: val2017)')
    parser.add_argument('--num-images', type=int, default=32, help='first images of a split (default: 32)')
    parser.add_argument(
        '--segments', type=int, nargs=2, default=(10, 60), help='fewest and most in a drawn image (10 60)')
    parser.add_argument(
        '--crops', type=int, nargs='+', choices=sorted(CONFIG_OF_CROP), default=sorted(CONFIG_OF_CROP))
    parser.add_argument(
        '--repeats', type=int, default=5, help='times that each pipeline has its turn (default: 5)')
    parser.add_argument('--color-policy', action='store_true', help='on both sides (default: on neither)')
    parser.add_argument('--json', type=Path, help='also write the numbers to this file')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    init_default_scope('mmdet')
    # As mmengine sets up the workers of a training.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as drawn:
        data, split = args.data, args.split
        if data is None:
            data, split = Path(drawn), 'drawn'
            draw_coco_like(data, split, args.num_images, args.segments)
        speeds = {crop: measure_speed(data, split, crop, args) for crop in args.crops}

    print(f'Images per second, medians of {args.repeats} repeats over the same images')
    print('crop   MMDetection     ours (ratio)   with copy-paste (ratio)')
    for crop, speed in speeds.items():
        print(f'{crop:4d}   {speed.mmdet:11.1f}   {speed.ours:6.1f} ({speed.ratio:.2f})   '
              f'{speed.ours_copy_paste:15.1f} ({speed.ratio_copy_paste:.2f})')
    if args.json is not None:
        args.json.write_text(json.dumps({crop: speed._asdict() for crop, speed in speeds.items()}, indent=2))


if __name__ == '__main__':
    main()
