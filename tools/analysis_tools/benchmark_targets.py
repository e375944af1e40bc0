#!/usr/bin/env python
"""Weigh the targets of one image: our index map against MMDetection's `preprocess_panoptic_gt`.

    python tools/analysis_tools/benchmark_targets.py

The image is a crop of 1281x1281 pixels with 40 things and 20 stuff. Each side has a process of its own, which
holds the ground truth as the pipeline packs it. What counts is by how much the largest resident set size of
the process grows while the targets are made. Unix only.
"""
import argparse
import json
import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Sequence

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData

from remax_mm.models.task_modules import build_panoptic_targets

SIDE, STRIDE = 1281, 4
THINGS, STUFF = 40, 20  # segments of the image
THING_CLASSES, STUFF_CLASSES = 80, 53


class GroundTruth(NamedTuple):
    """Bytes that an image's packed ground truth takes, and what makes the targets of it."""
    num_bytes: int
    make_targets: Callable[[], object]


class Memory(NamedTuple):
    """Megabytes (2^20 bytes) of the packed ground truth, and of what making the targets takes besides."""
    ground_truth: float
    targets: float

    @property
    def total(self) -> float:
        return self.ground_truth + self.targets


def draw_segments() -> np.ndarray:
    """(H, W) uint8, segments 1 to 60 as blocks of 10 rows by 6 columns, things first."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (rows * 10 // SIDE * 6 + columns * 6 // SIDE + 1).astype(np.uint8)


def draw_labels() -> np.ndarray:
    """(60,) int64."""
    return np.concatenate([np.arange(THINGS), THING_CLASSES + np.arange(STUFF)])


def pack_ours() -> GroundTruth:
    """As `PackPanopticInputs` packs it."""
    from mmdet.structures import DetDataSample  # can be imported once remax_mm has been

    segment_map, labels = torch.from_numpy(draw_segments())[None], torch.from_numpy(draw_labels())
    sample = DetDataSample(
        gt_panoptic_seg=PixelData(segment_map=segment_map),
        gt_segments=InstanceData(labels=labels, is_thing=labels < THING_CLASSES))
    size = [(SIDE - 1) // STRIDE + 1] * 2
    return GroundTruth(segment_map.nbytes,
                       lambda: build_panoptic_targets([sample], THING_CLASSES + STUFF_CLASSES, size))


def pack_mmdet() -> GroundTruth:
    """As `PackDetInputs` packs it: a mask for each thing, and a semantic map."""
    from mmdet.models.utils import preprocess_panoptic_gt
    from mmdet.structures.mask import BitmapMasks

    segments, labels = draw_segments(), draw_labels()
    masks = BitmapMasks([(segments == i + 1).astype(np.uint8) for i in range(THINGS)], SIDE, SIDE)
    sem_seg = torch.from_numpy(labels[segments - 1].astype(np.int32))[None]
    things = torch.from_numpy(labels[:THINGS])
    return GroundTruth(masks.masks.nbytes + sem_seg.nbytes,
                       lambda: preprocess_panoptic_gt(things, masks, sem_seg, THING_CLASSES, STUFF_CLASSES))


def measure_growth(pack: Callable[[], GroundTruth]) -> Memory:
    """Growth of this process's peak; to be run in a fresh one."""
    ground_truth = pack()
    # The peak so far may belong to importing and packing; this lifts the present size above it.
    ballast = np.ones(2**29, np.uint8)
    before = _peak_bytes()
    targets = ground_truth.make_targets()
    growth = _peak_bytes() - before
    del targets, ballast
    return Memory(ground_truth.num_bytes / 2**20, growth / 2**20)


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024


def measure_in_own_process(pack: Callable[[], GroundTruth]) -> Memory:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
        return pool.submit(measure_growth, pack).result()


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', type=Path, help='also write the numbers to this file')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    mmdet, ours = measure_in_own_process(pack_mmdet), measure_in_own_process(pack_ours)
    print(f'MB for an image of {SIDE}x{SIDE} pixels with {THINGS + STUFF} segments')
    print('              ground truth   targets     total')
    for name, memory in (('MMDetection', mmdet), ('ours', ours)):
        print(f'{name:12s}  {memory.ground_truth:12.1f}  {memory.targets:8.1f}  {memory.total:8.1f}')
    print(f'MMDetection takes {mmdet.targets / ours.targets:.1f} times as much for the targets, '
          f'{mmdet.total / ours.total:.1f} times in total')
    if args.json is not None:
        args.json.write_text(json.dumps(dict(mmdet=mmdet._asdict(), ours=ours._asdict()), indent=2))


if __name__ == '__main__':
    main()
