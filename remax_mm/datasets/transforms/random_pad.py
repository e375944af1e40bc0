"""Padding with the image at a random place."""
from typing import Tuple

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomPad(BaseTransform):
    """Pad image and index map to at least a size, with the image at a random offset.

    It stands before mmdet's ``RandomCrop``, which needs an image no smaller than the crop (deeplab2
    preprocess/input_preprocessing.py). mmcv's ``Pad`` adds to the right and the bottom only. An axis that is
    large enough stays as it is.

    Required keys: ``img``, ``gt_seg_map`` (optional). Changes them and ``img_shape``.

    Args:
        size: (width, height) in pixels, as in mmcv's ``Pad`` and mmdet's ``RandomCrop``.
        img_value: Value of padded pixels. deeplab2 takes 127.5, which uint8 cannot hold; after normalizing
            with 127.5 the default is 0.004.
        seg_value: Value of padded pixels in the index map, 0 is void.
    """

    def __init__(self, size: Tuple[int, int], img_value: int = 128, seg_value: int = 0) -> None:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f'Expected `size` to be (width, height) in pixels, but got {size}')
        self.size = tuple(size)
        self.img_value = img_value
        self.seg_value = seg_value

    @cache_randomness
    def _random_offset(self, free_rows: int, free_columns: int) -> Tuple[int, int]:
        return np.random.randint(free_rows + 1), np.random.randint(free_columns + 1)

    def transform(self, results: dict) -> dict:
        """Pad what is smaller than ``size``."""
        height, width = results['img'].shape[:2]
        rows, columns = max(self.size[1] - height, 0), max(self.size[0] - width, 0)
        if rows == columns == 0:
            return results
        top, left = self._random_offset(rows, columns)
        padding = (left, top, columns - left, rows - top)
        results['img'] = mmcv.impad(results['img'], padding=padding, pad_val=(self.img_value, ) * 3)
        results['img_shape'] = results['img'].shape[:2]
        if 'gt_seg_map' in results:
            results['gt_seg_map'] = mmcv.impad(results['gt_seg_map'], padding=padding, pad_val=self.seg_value)
        return results

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(size={self.size}, img_value={self.img_value}, '
                f'seg_value={self.seg_value})')
