"""Memory of the targets of an image: our masks at stride 4, and MMDetection's ``preprocess_panoptic_gt``.

The image is a crop with 40 things and 20 stuff segments. Each side runs in its own process, which has the
ground truth as the pipeline packs it. The result is how much the peak resident set size of the process grows
while the targets are made. Unix only.
"""
import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Callable, NamedTuple, Tuple

import numpy as np
import torch
from mmdet.models.utils import preprocess_panoptic_gt
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData

from remax_mm.models.task_modules import build_panoptic_targets

SIDE, STRIDE = 1281, 4
THINGS, STUFF = 40, 20  # segments of the image
THING_CLASSES, STUFF_CLASSES = 80, 53


class GroundTruth(NamedTuple):
    """Bytes of an image's packed ground truth, and a function that makes the targets."""
    num_bytes: int
    make_targets: Callable[[], object]


class TargetMemory(NamedTuple):
    """MiB of the packed ground truth, and MiB that making the targets needs in addition."""
    ground_truth: float
    targets: float

    @property
    def total(self) -> float:
        """Sum of both."""
        return self.ground_truth + self.targets


def compare_targets(side: int = SIDE) -> Tuple[TargetMemory, TargetMemory]:
    """Memory of MMDetection's targets and of ours, for an image of ``side`` x ``side`` pixels."""
    return _measure_in_own_process(pack_mmdet, side), _measure_in_own_process(pack_ours, side)


def _measure_in_own_process(pack: Callable[[int], GroundTruth], side: int) -> TargetMemory:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
        return pool.submit(measure_growth, partial(pack, side)).result()


def measure_growth(pack: Callable[[], GroundTruth]) -> TargetMemory:
    """Growth of the peak memory of this process while the targets are made."""
    ground_truth = pack()
    # The peak may come from packing or from the parent process. The ballast raises the current size to it.
    ballast, before = [], _peak_bytes()
    while _peak_bytes() == before:
        ballast.append(np.ones(2**26, np.uint8))
    before = _peak_bytes()
    targets = ground_truth.make_targets()
    growth = _peak_bytes() - before
    del targets, ballast
    return TargetMemory(ground_truth.num_bytes / 2**20, growth / 2**20)


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024


def pack_ours(side: int) -> GroundTruth:
    """Ground truth as ``PackPanopticInputs`` packs it."""
    segment_map, labels = torch.from_numpy(_draw_segments(side))[None], torch.from_numpy(_draw_labels())
    sample = DetDataSample(
        gt_panoptic_seg=PixelData(segment_map=segment_map),
        gt_segments=InstanceData(labels=labels, is_thing=labels < THING_CLASSES))
    size = [(side - 1) // STRIDE + 1] * 2
    return GroundTruth(segment_map.nbytes,
                       lambda: build_panoptic_targets([sample], THING_CLASSES + STUFF_CLASSES, size))


def pack_mmdet(side: int) -> GroundTruth:
    """Ground truth as ``PackDetInputs`` packs it: a mask for each thing, and a semantic map."""
    segments, labels = _draw_segments(side), _draw_labels()
    masks = BitmapMasks([(segments == i + 1).astype(np.uint8) for i in range(THINGS)], side, side)
    sem_seg = torch.from_numpy(labels[segments - 1].astype(np.int32))[None]
    things = torch.from_numpy(labels[:THINGS])
    return GroundTruth(masks.masks.nbytes + sem_seg.nbytes,
                       lambda: preprocess_panoptic_gt(things, masks, sem_seg, THING_CLASSES, STUFF_CLASSES))


def _draw_segments(side: int) -> np.ndarray:
    """(H, W) uint8, segments 1 to 60 as blocks in 10 rows and 6 columns, things first."""
    rows, columns = np.mgrid[:side, :side]
    return (rows * 10 // side * 6 + columns * 6 // side + 1).astype(np.uint8)


def _draw_labels() -> np.ndarray:
    """(60,) int64."""
    return np.concatenate([np.arange(THINGS), THING_CLASSES + np.arange(STUFF)])
