"""Time of PQ: PanopticQualityMetric against mmdet's CocoPanopticMetric, on drawn images.

    python tools/analysis_tools/benchmark_panoptic_quality.py

mmdet's metric runs as its configs have it (annotation file and folder of PNGs): each prediction is written to
a PNG and read again, the annotated PNG is decoded, and each segment is looked at on the whole map. It needs
panopticapi; where that is missing, the few names that mmdet takes from it are filled in here, so that what
runs is still mmdet's code. Both metrics see the same predictions one after the other in each repeat, on
one thread, and must give the same PQ. Reading the samples and the model are not part of the time.
"""
import argparse
import contextlib
import io
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np
import torch
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.fileio import dump
from mmengine.logging import MMLogger

import remax_mm  # noqa: F401  (makes mmdet importable and registers the metric)
from remax_mm.evaluation import class_quality
from remax_mm.panoptic_format import write_segment_ids

NUM_THINGS, NUM_CLASSES = 80, 133  # as COCO
META = dict(
    classes=[f'class {label}' for label in range(NUM_CLASSES)],
    thing_classes=[f'class {label}' for label in range(NUM_THINGS)])


class Timing(NamedTuple):
    """Milliseconds per image of each repeat, and the PQ, of the two metrics at one size."""
    ours: List[float]
    mmdet: List[float]
    quality: float

    @property
    def ratio(self) -> float:
        """How often ours fits into mmdet's time, by the medians."""
        return float(np.median(self.mmdet) / np.median(self.ours))


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--sizes',
        nargs='+',
        default=['480x640', '1024x2048'],
        help='heights x widths (default: of COCO and Cityscapes)')
    parser.add_argument('--images', type=int, default=8, help='images of each size (default: 8)')
    parser.add_argument('--repeats', type=int, default=5, help='evaluations of them (default: 5)')
    parser.add_argument('--seed', type=int, default=0, help='seed of what is drawn (default: 0)')
    parser.add_argument('--json', type=Path, help='write the numbers to this file')
    return parser.parse_args(arguments)


class StandInStatistics:
    """What mmdet uses of panopticapi's `PQStat`: sums of each category, and their means."""

    class Row:

        def __init__(self) -> None:
            self.iou, self.tp, self.fp, self.fn = 0., 0, 0, 0

    def __init__(self) -> None:
        self.rows: Dict[int, StandInStatistics.Row] = defaultdict(self.Row)

    def __getitem__(self, category: int) -> 'StandInStatistics.Row':
        return self.rows[category]

    def __iadd__(self, other: 'StandInStatistics') -> 'StandInStatistics':
        for category, row in other.rows.items():
            for name, value in vars(row).items():
                setattr(self.rows[category], name, getattr(self.rows[category], name) + value)
        return self

    def pq_average(self, categories: Dict[int, dict], isthing: Optional[bool]) -> Tuple[dict, dict]:
        wanted = [c for c, info in categories.items() if isthing in (None, info['isthing'] == 1)]
        counts = [[getattr(self[c], name) for name in ('iou', 'tp', 'fp', 'fn')] for c in wanted]
        quality = class_quality(np.array(counts))
        means = {name: float(np.nanmean(values)) for name, values in quality._asdict().items()}
        return dict(means, n=int((~np.isnan(quality.pq)).sum())), {}


def stand_in_for_panopticapi() -> bool:
    """Fill in the names that mmdet's metric takes from panopticapi, if it is missing.

    Returns:
        Whether it is missing.
    """
    # Not importable before remax_mm is.
    from mmdet.evaluation.functional import panoptic_utils
    from mmdet.evaluation.metrics import coco_panoptic_metric
    if coco_panoptic_metric.panopticapi is not None:
        return False

    def rgb2id(rgb: np.ndarray) -> np.ndarray:
        rgb = rgb.astype(np.int32)
        return rgb[..., 0] + 256 * rgb[..., 1] + 256 * 256 * rgb[..., 2]

    def id2rgb(ids: np.ndarray) -> np.ndarray:
        ids, rgb = ids.copy(), np.zeros((*ids.shape, 3), dtype=np.uint8)
        for channel in range(3):
            rgb[..., channel] = ids % 256
            ids //= 256
        return rgb

    names = dict(panopticapi=True, VOID=0, PQStat=StandInStatistics, rgb2id=rgb2id, id2rgb=id2rgb)
    for module in (coco_panoptic_metric, panoptic_utils):
        for name, value in names.items():
            setattr(module, name, value)
    return True


def draw_segments(rng: np.random.Generator, height: int, width: int, number: int) -> np.ndarray:
    """(H, W) int32 in [1, number]: five patches of rugged outline and polygons on them."""
    rough = rng.normal(size=(height // 32 + 2, width // 32 + 2)).astype(np.float32)
    rough = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
    drawn = (1 + np.searchsorted(np.quantile(rough, [0.2, 0.4, 0.6, 0.8]), rough)).astype(np.int32)
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    for value in range(6, number + 1):
        radius = min(height, width) * rng.uniform(0.02, 0.2) * rng.uniform(0.5, 1.2, len(angles))
        x = rng.integers(width) + radius * np.cos(angles)
        y = rng.integers(height) + radius * np.sin(angles)
        cv2.fillPoly(drawn, [np.stack([x, y], axis=1).astype(np.int32)], value)
    return drawn


def write_scene(rng: np.random.Generator, folder: Path, name: str, size: Tuple[int, int]) -> dict:
    """Draw 15 to 40 segments and write their PNG; a data sample whose prediction is a little beside them."""
    drawn = draw_segments(rng, *size, number=int(rng.integers(15, 41)))
    values, drawn = np.unique(drawn, return_inverse=True)
    drawn = drawn.reshape(size)
    ids = rng.choice(np.arange(1, 256**3, 97), len(values), replace=False)
    labels = [NUM_THINGS + i if i < 5 else int(rng.integers(NUM_THINGS)) for i in range(len(values))]
    write_segment_ids(folder / f'{name}.png', ids[drawn])
    infos = [
        dict(id=int(i), category=label, is_thing=label < NUM_THINGS, iscrowd=False)
        for i, label in zip(ids, labels)
    ]

    found = np.array([label + 1000 * (row + 1) * (label < NUM_THINGS) for row, label in enumerate(labels)])
    found[rng.random(len(found)) < 0.1] = NUM_CLASSES  # void
    moved = np.roll(drawn, (2, 3), axis=(0, 1))
    return dict(
        img_id=int(name),
        img_path=f'{name}.jpg',
        ori_shape=size,
        seg_map_path=str(folder / f'{name}.png'),
        segments_info=infos,
        pred_panoptic_seg=dict(sem_seg=torch.from_numpy(found[moved].astype(np.int32))[None]))


def write_annotations(path: Path, samples: Sequence[dict]) -> None:
    """The JSON that mmdet's metric reads."""
    annotations = []
    for sample in samples:
        ids = cv2.imread(sample['seg_map_path'])[..., ::-1].astype(np.int64) @ [1, 256, 65536]
        segments = [
            dict(
                id=info['id'],
                category_id=info['category'] + 1,
                iscrowd=0,
                area=int((ids == info['id']).sum())) for info in sample['segments_info']
        ]
        annotations.append(
            dict(
                image_id=sample['img_id'],
                file_name=Path(sample['seg_map_path']).name,
                segments_info=segments))
    images = [dict(id=sample['img_id'], file_name=sample['img_path']) for sample in samples]
    categories = [
        dict(id=label + 1, name=name, isthing=int(label < NUM_THINGS))
        for label, name in enumerate(META['classes'])
    ]
    dump(dict(images=images, annotations=annotations, categories=categories), path)


def evaluate(metric: BaseMetric, samples: Sequence[dict]) -> Tuple[float, Dict[str, float]]:
    """Milliseconds per image, and the metrics."""
    # mmdet's metric writes into the prediction.
    samples = [
        dict(sample, pred_panoptic_seg=dict(sem_seg=sample['pred_panoptic_seg']['sem_seg'].clone()))
        for sample in samples
    ]
    start = time.perf_counter()
    for sample in samples:
        metric.process(None, [sample])
    metrics = metric.evaluate(len(samples))
    return 1e3 * (time.perf_counter() - start) / len(samples), metrics


def compare(size: Tuple[int, int], images: int, repeats: int, seed: int) -> Timing:
    """Evaluate the same images by both metrics in turn.

    Raises:
        RuntimeError: the two do not give the same PQ.
    """
    rng = np.random.default_rng(seed)
    ours, mmdet = [], []
    with tempfile.TemporaryDirectory() as folder:
        samples = [write_scene(rng, Path(folder), f'{number:06d}', size) for number in range(images)]
        ann_file = Path(folder) / 'annotations.json'
        write_annotations(ann_file, samples)
        with contextlib.redirect_stdout(io.StringIO()):  # mmdet reports each index that it makes
            metrics = [
                METRICS.build(dict(type='PanopticQualityMetric')),
                METRICS.build(dict(type='CocoPanopticMetric', ann_file=str(ann_file), seg_prefix=folder))
            ]
        for metric in metrics:
            metric.dataset_meta = META
            evaluate(metric, samples[:1])  # the first call of anything is slow
        for _ in range(repeats):
            (own_time, own), (other_time, other) = (evaluate(metric, samples) for metric in metrics)
            ours.append(own_time)
            mmdet.append(other_time)
            if max(abs(own[key] - other[key]) for key in other) > 1e-9:
                raise RuntimeError(f'Expected the same quality of both metrics, but got {own} and {other}')
    return Timing(ours, mmdet, own['coco_panoptic/PQ'])


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    MMLogger.get_instance('benchmark_panoptic_quality').setLevel('ERROR')  # no table for each evaluation
    missing = stand_in_for_panopticapi()
    print(f'panopticapi: {"missing, its names are filled in" if missing else "installed"}')

    numbers = {}
    for text in args.sizes:
        height, width = map(int, text.split('x'))
        timing = compare((height, width), args.images, args.repeats, args.seed)
        numbers[text] = dict(timing._asdict(), ratio=timing.ratio)
        print(f'{text}: {np.median(timing.ours):.1f} ms per image, mmdet {np.median(timing.mmdet):.1f} ms, '
              f'{timing.ratio:.1f}x (medians of {args.repeats} repeats with {args.images} images; ours '
              f'{min(timing.ours):.1f} to {max(timing.ours):.1f}, mmdet {min(timing.mmdet):.1f} to '
              f'{max(timing.mmdet):.1f} ms; PQ {timing.quality:.2f} by both)')
    if args.json:
        dump(numbers, args.json, indent=2)


if __name__ == '__main__':
    main()
