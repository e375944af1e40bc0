"""The fixed color policy of kMaX-DeepLab: five pairs of AutoAugment's color operations."""
from typing import Callable, Dict, List, NamedTuple

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS
from PIL import Image, ImageOps

MAX_LEVEL = 10
_RAMP = np.arange(256, dtype=np.uint8)
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13  # PIL's ImageFilter.SMOOTH


class ColorStep(NamedTuple):
    """An operation of :data:`COLOR_OPERATIONS`, its probability in [0, 1] and its level in [0, 10]."""
    operation: str
    probability: float
    level: float


SIMPLE_POLICY = (
    (ColorStep('sharpness', 0.4, 7), ColorStep('brightness', 0.2, 10)),
    (ColorStep('equalize', 0.0, 9), ColorStep('contrast', 0.2, 10)),
    (ColorStep('sharpness', 0.2, 9), ColorStep('color', 0.2, 9)),
    (ColorStep('solarize', 0.2, 7), ColorStep('equalize', 0.6, 9)),
    (ColorStep('sharpness', 0.2, 1), ColorStep('equalize', 0.2, 7)),
)
"""Pairs of steps, one of which is applied to an image.

deeplab2, preprocessing/autoaugment_policy.py, ``simple_classification_policy``.
"""


def adjust_sharpness(image: np.ndarray, level: float) -> np.ndarray:
    """Blend with a smoothed image; the border pixels are not smoothed."""
    smooth = cv2.filter2D(image, -1, _SMOOTH)
    smooth[[0, -1]], smooth[:, [0, -1]] = image[[0, -1]], image[:, [0, -1]]
    return _blend(smooth, image, _factor(level))


def adjust_brightness(image: np.ndarray, level: float) -> np.ndarray:
    """Blend with black."""
    return cv2.LUT(image, _blend(np.zeros_like(_RAMP), _RAMP, _factor(level)))


def adjust_contrast(image: np.ndarray, level: float) -> np.ndarray:
    """Blend with the mean gray of the image.

    As in PIL. deeplab2 instead uses the number of pixels divided by 256, clipped to 255, which is white for
    any photo.
    """
    mean = round(cv2.mean(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))[0])
    return cv2.LUT(image, _blend(np.full_like(_RAMP, mean), _RAMP, _factor(level)))


def adjust_color(image: np.ndarray, level: float) -> np.ndarray:
    """Blend with the grayscale image."""
    return mmcv.adjust_color(image, _factor(level), backend='cv2')


def solarize(image: np.ndarray, level: float) -> np.ndarray:
    """Invert the values from 256 * level / 10 on."""
    return cv2.LUT(image, mmcv.solarize(_RAMP, int(level / MAX_LEVEL * 256)))


def equalize(image: np.ndarray, level: float) -> np.ndarray:
    """Equalize the histogram of each channel; the level has no effect."""
    return np.array(ImageOps.equalize(Image.fromarray(image)))


COLOR_OPERATIONS: Dict[str, Callable[[np.ndarray, float], np.ndarray]] = dict(
    sharpness=adjust_sharpness,
    brightness=adjust_brightness,
    contrast=adjust_contrast,
    color=adjust_color,
    solarize=solarize,
    equalize=equalize)
"""Functions of an image (H, W, 3) uint8 in the order B, G, R and a level that return a new image.

Up to rounding they equal PIL's ImageEnhance and ImageOps, which define AutoAugment. mmdet's transforms of
these names round the strength to one decimal and accept only integer levels.
"""


def _factor(level: float) -> float:
    """Weight of the image in a blend: 0.1 at level 0, 1 (no change) at level 5, 1.9 at level 10."""
    return level / MAX_LEVEL * 1.8 + 0.1


def _blend(degenerate: np.ndarray, image: np.ndarray, factor: float) -> np.ndarray:
    """Interpolate between two images for factors below 1, extrapolate above; clipped to [0, 255]."""
    return cv2.addWeighted(image, factor, degenerate, 1 - factor, 0)


@TRANSFORMS.register_module()
class ColorPolicy(BaseTransform):
    """Apply a random pair of :data:`SIMPLE_POLICY`, each operation with its own probability.

    This step comes after the random scale and before the padding, so that image statistics are those of the
    photo (deeplab2, data/preprocessing/input_preprocessing.py).

    Required keys: ``img`` (H, W, 3) uint8 in the order B, G, R. Changes it.

    Args:
        magnitude_scale: Factor on all levels; deeplab2 uses 0.2 on Cityscapes.

    Raises:
        ValueError: ``magnitude_scale`` is not in (0, 1], or an image is not (H, W, 3) uint8.
    """

    def __init__(self, magnitude_scale: float = 1.0) -> None:
        if not 0 < magnitude_scale <= 1:
            raise ValueError(f'Expected `magnitude_scale` in (0, 1], but got {magnitude_scale}')
        self.magnitude_scale = magnitude_scale

    @cache_randomness
    def _draw_steps(self) -> List[ColorStep]:
        pair = SIMPLE_POLICY[np.random.randint(len(SIMPLE_POLICY))]
        return [step for step in pair if np.random.rand() < step.probability]

    def transform(self, results: dict) -> dict:
        """Change the colors of the image."""
        image = results['img']
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f'Expected an image (H, W, 3) uint8 for ColorPolicy, but '
                             f'{results.get("img_path")} is {image.shape} {image.dtype}')
        for step in self._draw_steps():
            image = COLOR_OPERATIONS[step.operation](image, step.level * self.magnitude_scale)
        results['img'] = image
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(magnitude_scale={self.magnitude_scale})'
