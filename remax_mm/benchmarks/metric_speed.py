"""Time of PQ: ``PanopticQualityMetric`` compared with MMDetection's ``CocoPanopticMetric``.

MMDetection's metric runs as in its configs, with an annotation file and a folder of PNGs: it writes each
prediction to a PNG and reads it again, decodes the annotated PNG, and compares each segment on the whole map.
"""
import contextlib
import io
import tempfile
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric

from .random_scenes import META, write_annotations, write_scene


class MetricTiming(NamedTuple):
    """Milliseconds per image in each repeat of our and of MMDetection's metric, and the PQ in percent."""
    ours: List[float]
    mmdet: List[float]
    quality: float

    @property
    def ratio(self) -> float:
        """MMDetection's time relative to ours, of the medians."""
        return float(np.median(self.mmdet) / np.median(self.ours))


def compare_metrics(size: Tuple[int, int], images: int, repeats: int, seed: int = 0) -> MetricTiming:
    """Evaluate the same images with both metrics in turn.

    Reading the samples is not part of the time.

    Args:
        size: (height, width).
        images: Number of images.
        repeats: Number of evaluations.
        seed: Random seed of the images.

    Raises:
        RuntimeError: the two metrics give different values.
    """
    rng = np.random.default_rng(seed)
    timing = MetricTiming([], [], float('nan'))
    with tempfile.TemporaryDirectory() as folder:
        samples = [write_scene(rng, Path(folder), f'{number:06d}', size) for number in range(images)]
        ann_file = Path(folder) / 'annotations.json'
        write_annotations(ann_file, samples)
        with contextlib.redirect_stdout(io.StringIO()):  # mmdet prints a line for each index
            metrics = [
                METRICS.build(dict(type='PanopticQualityMetric')),
                METRICS.build(dict(type='CocoPanopticMetric', ann_file=str(ann_file), seg_prefix=folder))
            ]
        for metric in metrics:
            metric.dataset_meta = META
            evaluate(metric, samples[:1])  # the first call is slow
        for _ in range(repeats):
            (our_time, ours), (mmdet_time, mmdet) = (evaluate(metric, samples) for metric in metrics)
            timing.ours.append(our_time)
            timing.mmdet.append(mmdet_time)
            if max(abs(ours[key] - mmdet[key]) for key in mmdet) > 1e-9:
                raise RuntimeError(f'Expected the same quality of both metrics, but got {ours} and {mmdet}')
    return timing._replace(quality=ours['coco_panoptic/PQ'])


def evaluate(metric: BaseMetric, samples: Sequence[dict]) -> Tuple[float, Dict[str, float]]:
    """Milliseconds per image, and the values of the metric."""
    # mmdet's metric changes the prediction.
    samples = [
        dict(sample, pred_panoptic_seg=dict(sem_seg=sample['pred_panoptic_seg']['sem_seg'].clone()))
        for sample in samples
    ]
    start = time.perf_counter()
    for sample in samples:
        metric.process(None, [sample])
    values = metric.evaluate(len(samples))
    return 1e3 * (time.perf_counter() - start) / len(samples), values
