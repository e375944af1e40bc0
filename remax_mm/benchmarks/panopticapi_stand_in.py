"""The names that MMDetection takes from panopticapi, which is not on PyPI, so that its code can run."""
import sys
from collections import defaultdict
from types import ModuleType, SimpleNamespace
from typing import Any, Dict, Optional, Tuple

import numpy as np
from mmdet.evaluation.functional import panoptic_utils
from mmdet.evaluation.metrics import coco_panoptic_metric

from remax_mm.evaluation import class_quality


def install_for_loading() -> None:
    """Provide ``panopticapi.utils.rgb2id``, which ``LoadPanopticAnnotations`` imports."""
    module: Any = ModuleType('panopticapi')
    module.utils = SimpleNamespace(rgb2id=rgb2id)
    sys.modules['panopticapi'] = module


def install_for_metric() -> bool:
    """Provide the names that ``CocoPanopticMetric`` imports, if panopticapi is missing.

    Returns:
        Whether it is missing.
    """
    if coco_panoptic_metric.panopticapi is not None:
        return False
    names = dict(panopticapi=True, VOID=0, PQStat=Statistics, rgb2id=rgb2id, id2rgb=id2rgb)
    for module in (coco_panoptic_metric, panoptic_utils):
        for name, value in names.items():
            setattr(module, name, value)
    return True


def rgb2id(color: np.ndarray) -> np.ndarray:
    """Ids R + 256 G + 256² B, (H, W) int32, of (H, W, 3) RGB."""
    color = color.astype(np.int32)
    return color[..., 0] + 256 * color[..., 1] + 256 * 256 * color[..., 2]


def id2rgb(ids: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) uint8 of ids (H, W)."""
    ids, rgb = ids.copy(), np.zeros((*ids.shape, 3), dtype=np.uint8)
    for channel in range(3):
        rgb[..., channel] = ids % 256
        ids //= 256
    return rgb


class Statistics:
    """``PQStat``, as far as MMDetection uses it: sums per category, and their means."""

    class Row:
        """Sums of a category."""

        def __init__(self) -> None:
            self.iou, self.tp, self.fp, self.fn = 0., 0, 0, 0

    def __init__(self) -> None:
        self.rows: Dict[int, Statistics.Row] = defaultdict(self.Row)

    def __getitem__(self, category: int) -> 'Statistics.Row':
        return self.rows[category]

    def __iadd__(self, other: 'Statistics') -> 'Statistics':
        for category, row in other.rows.items():
            for name, value in vars(row).items():
                setattr(self.rows[category], name, getattr(self.rows[category], name) + value)
        return self

    def pq_average(self, categories: Dict[int, dict], isthing: Optional[bool]) -> Tuple[dict, dict]:
        """Means of PQ, SQ and RQ over all categories, things (True) or stuff (False)."""
        selected = [c for c, info in categories.items() if isthing in (None, info['isthing'] == 1)]
        counts = [[getattr(self[c], name) for name in ('iou', 'tp', 'fp', 'fn')] for c in selected]
        quality = class_quality(np.array(counts))
        means = {name: float(np.nanmean(values)) for name, values in quality._asdict().items()}
        return dict(means, n=int((~np.isnan(quality.pq)).sum())), {}
