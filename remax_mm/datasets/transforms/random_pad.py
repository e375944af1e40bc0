"""Padding that places the image at a random position."""
from typing import Tuple

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS

from remax_mm.structures import VOID_SEGMENT

GRAY = 128
"""Value of padded pixels. deeplab2 uses 127.5, which is not a uint8; normalized with 127.5, this is 0.004."""


@TRANSFORMS.register_module()
class RandomPad(BaseTransform):
    """Pad image and index map to at least a size, with the image at a random offset.

    This step comes before mmdet's ``RandomCrop``, which needs an image no smaller than the crop (deeplab2,
    preprocess/input_preprocessing.py). mmcv's ``Pad`` pads only on the right and at the bottom. An axis that
    is large enough does not change.

    Required keys: ``img`` (H, W, 3) uint8, ``gt_seg_map`` (optional). Changes them and ``img_shape``. Padded
    pixels are gray in the image and void in the map.

    Args:
        size: (width, height) in pixels, as in mmcv's ``Pad`` and mmdet's ``RandomCrop``.

    Raises:
        ValueError: ``size`` is not two positive numbers.
    """

    def __init__(self, size: Tuple[int, int]) -> None:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f'Expected `size` to be (width, height) in pixels, but got {size}')
        self.size = tuple(size)

    @cache_randomness
    def _random_offset(self, free_rows: int, free_columns: int) -> Tuple[int, int]:
        return np.random.randint(free_rows + 1), np.random.randint(free_columns + 1)

    def transform(self, results: dict) -> dict:
        """Pad the axes that are smaller than ``size``."""
        height, width = results['img'].shape[:2]
        rows, columns = max(self.size[1] - height, 0), max(self.size[0] - width, 0)
        if rows == columns == 0:
            return results
        top, left = self._random_offset(rows, columns)
        padding = (left, top, columns - left, rows - top)
        results['img'] = mmcv.impad(results['img'], padding=padding, pad_val=(GRAY, ) * 3)
        results['img_shape'] = results['img'].shape[:2]
        if 'gt_seg_map' in results:
            results['gt_seg_map'] = mmcv.impad(results['gt_seg_map'], padding=padding, pad_val=VOID_SEGMENT)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size})'
