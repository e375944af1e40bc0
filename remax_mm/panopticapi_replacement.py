"""The names that MMDetection imports from panopticapi, for environments without that package.

panopticapi is not on PyPI. Without it, MMDetection's loader of panoptic annotations, its metric
``CocoPanopticMetric`` and its ``DetInferencer`` stop. The names below do the same as those of
cocodataset/panopticapi (``panopticapi/utils.py`` and ``panopticapi/evaluation.py``), with two exceptions:
:meth:`PQStat.pq_average` gives NaN for a group without categories, where panopticapi divides by zero, and
:class:`IdGenerator` never gives the id of void.

The official package is used where it is installed: ``pip install -r requirements/panopticapi.txt``.
"""
import json
import sys
from collections import defaultdict
from importlib.util import find_spec
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple, Union

import numpy as np

VOID = 0
"""Id of the unlabeled pixels."""

OFFSET = 256**3
"""Number of ids, so that ``annotated id * OFFSET + predicted id`` is unique."""

_MODULES = ('panopticapi', 'panopticapi.utils', 'panopticapi.evaluation')
_USERS = ('mmdet.evaluation.functional.panoptic_utils', 'mmdet.evaluation.metrics.coco_panoptic_metric',
          'mmdet.apis.det_inferencer')
"""Modules of MMDetection with these names as global variables, None if the package is missing."""


def replace_missing_panopticapi() -> bool:
    """Provide this module under the name of panopticapi if that package is not installed.

    Modules of MMDetection that were imported before get the names as well.

    Returns:
        Whether panopticapi is replaced.
    """
    this = sys.modules[__name__]
    if find_spec('panopticapi') not in (None, this.__spec__):
        return False
    # `from panopticapi import utils` takes an attribute of the module.
    vars(this).update(utils=this, evaluation=this)
    sys.modules.update({name: this for name in _MODULES})
    values = dict(panopticapi=this, VOID=VOID, OFFSET=OFFSET, PQStat=PQStat, rgb2id=rgb2id, id2rgb=id2rgb)
    for user in filter(None, map(sys.modules.get, _USERS)):
        vars(user).update({name: value for name, value in values.items() if name in vars(user)})
    return True


def rgb2id(color: Union[np.ndarray, Sequence[int]]) -> Any:
    """Ids R + 256 G + 256² B of RGB colors (H, W, 3), or the id of one color."""
    if isinstance(color, np.ndarray) and color.ndim == 3:
        color = color.astype(np.int32) if color.dtype == np.uint8 else color
        return color[..., 0] + 256 * color[..., 1] + 256**2 * color[..., 2]
    red, green, blue = (int(value) for value in color)
    return red + 256 * green + 256**2 * blue


def id2rgb(ids: Union[np.ndarray, int]) -> Union[np.ndarray, List[int]]:
    """RGB colors (H, W, 3) uint8 of ids (H, W), or the color of one id."""
    if isinstance(ids, np.ndarray):
        return np.stack([ids // 256**power % 256 for power in range(3)], axis=-1).astype(np.uint8)
    return [ids // 256**power % 256 for power in range(3)]


def save_json(content: Any, path: str) -> None:
    """Write a JSON file."""
    with open(path, 'w') as file:
        json.dump(content, file)


class IdGenerator:
    """Unique segment ids whose colors resemble the color of their category.

    Args:
        categories: ``isthing`` and ``color`` of each category id.
    """

    MAX_DISTANCE = 30
    """Largest difference to the color of the category, in each channel."""

    def __init__(self, categories: Dict[int, dict]) -> None:
        self.categories = categories
        self.taken_colors: Set[Tuple[int, ...]] = {(0, 0, 0)}
        self.taken_colors.update(
            tuple(category['color']) for category in categories.values() if category['isthing'] == 0)

    def get_color(self, cat_id: int) -> Sequence[int]:
        """Color of a new segment: that of the category for stuff and for the first thing."""
        category = self.categories[cat_id]
        if category['isthing'] == 0:
            return category['color']
        color = base = tuple(category['color'])
        while color in self.taken_colors:
            change = np.random.randint(-self.MAX_DISTANCE, self.MAX_DISTANCE + 1, 3)
            color = tuple(np.clip(np.add(base, change), 0, 255).tolist())
        self.taken_colors.add(color)
        return color

    def get_id(self, cat_id: int) -> int:
        """Id of a new segment."""
        return rgb2id(self.get_color(cat_id))

    def get_id_and_color(self, cat_id: int) -> Tuple[int, Sequence[int]]:
        """Id and color of a new segment."""
        color = self.get_color(cat_id)
        return rgb2id(color), color


class PQStatCat:
    """Sum of the IoU, and numbers of true positives, false positives and false negatives of a category."""

    def __init__(self) -> None:
        self.iou, self.tp, self.fp, self.fn = 0., 0, 0, 0

    def __iadd__(self, other: 'PQStatCat') -> 'PQStatCat':
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


class PQStat:
    """Sums per category, and the panoptic quality that they give."""

    def __init__(self) -> None:
        self.pq_per_cat: Dict[int, PQStatCat] = defaultdict(PQStatCat)

    def __getitem__(self, cat_id: int) -> PQStatCat:
        return self.pq_per_cat[cat_id]

    def __iadd__(self, other: 'PQStat') -> 'PQStat':
        for cat_id, sums in other.pq_per_cat.items():
            self.pq_per_cat[cat_id] += sums
        return self

    def pq_average(self, categories: Dict[int, dict],
                   isthing: Optional[bool]) -> Tuple[Dict[str, float], Dict[int, Dict[str, float]]]:
        """Mean PQ, SQ and RQ in [0, 1] over the categories that occur, and their number ``n``.

        Args:
            categories: ``isthing`` of each category id.
            isthing: True for things, False for stuff, None for both.

        Returns:
            The means, NaN without such a category, and the values of each category, 0 if it does not occur.
        """
        # Imported here, because the metrics import MMDetection, which imports this module.
        from remax_mm.evaluation import class_quality
        selected = [
            cat_id for cat_id, category in categories.items()
            if isthing is None or isthing == (category['isthing'] == 1)
        ]
        counts = [(sums.iou, sums.tp, sums.fp, sums.fn) for sums in map(self.__getitem__, selected)]
        quality = class_quality(np.reshape(counts, (-1, 4)))._asdict()
        seen = ~np.isnan(quality['pq'])
        means = {
            name: float(values[seen].mean()) if seen.any() else float('nan')
            for name, values in quality.items()
        }
        values = np.nan_to_num(np.stack(list(quality.values()), axis=-1)).tolist()
        return (dict(means, n=int(seen.sum())), {
            cat_id: dict(zip(quality, row))
            for cat_id, row in zip(selected, values)
        })
