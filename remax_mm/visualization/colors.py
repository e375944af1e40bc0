"""Colors of classes and of their instances: one palette for all tools."""
import colorsys
from typing import List, Mapping, Tuple

import numpy as np

Color = Tuple[int, int, int]

GOLDEN_RATIO = 0.618033988749895


def class_colors(dataset_meta: Mapping) -> List[Color]:
    """Colors of the K classes of a dataset.

    Args:
        dataset_meta: ``classes``, and optionally ``palette``, a list of RGB colors in [0, 255]. Without a
            list, as with mmdet's ``palette='random'``, the colors are those of :func:`spread_colors`.

    Raises:
        ValueError: there are no classes, or fewer colors than classes.
    """
    classes, palette = dataset_meta.get('classes'), dataset_meta.get('palette')
    if classes is None:
        raise ValueError(f'Expected `classes` in the `dataset_meta`, but got {sorted(dataset_meta)}')
    if not isinstance(palette, (list, tuple)):
        return spread_colors(len(classes))
    if len(palette) < len(classes):
        raise ValueError(f'Expected a color for each of the {len(classes)} classes, but got {len(palette)}')
    return [(int(red), int(green), int(blue)) for red, green, blue in palette[:len(classes)]]


def spread_colors(number: int) -> List[Color]:
    """Return colors of different hue, in steps of the golden ratio: neighbors in the list differ clearly."""
    hues = (number * GOLDEN_RATIO % 1 for number in range(number))
    return [_to_rgb(hue, 0.45 + 0.15 * (step % 3), 0.75) for step, hue in enumerate(hues)]


def shade(color: Color, instance: int) -> Color:
    """Vary hue and lightness of the color of a class for one of its instances.

    Args:
        color: RGB in [0, 255].
        instance: Number of the instance; 0 returns ``color``.
    """
    red, green, blue = color
    if instance == 0:
        return int(red), int(green), int(blue)
    hue, lightness, saturation = colorsys.rgb_to_hls(red / 255, green / 255, blue / 255)
    hue_shift = 0.12 * (instance * GOLDEN_RATIO % 1 - 0.5)
    lightness_shift = 0.35 * (instance * GOLDEN_RATIO**2 * 5 % 1 - 0.5)
    return _to_rgb((hue + hue_shift) % 1, np.clip(lightness + lightness_shift, 0.25, 0.8),
                   max(saturation, 0.4))


def _to_rgb(hue: float, lightness: float, saturation: float) -> Color:
    red, green, blue = (int(round(255 * c)) for c in colorsys.hls_to_rgb(hue, float(lightness), saturation))
    return red, green, blue
