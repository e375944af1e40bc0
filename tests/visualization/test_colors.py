import numpy as np
import pytest

from remax_mm.visualization import class_colors, shade, spread_colors


def test_class_colors__palette_of_the_dataset():
    assert class_colors(dict(classes=('a', 'b'), palette=[[1, 2, 3], (4, 5, 6), (7, 8, 9)])) == [(1, 2, 3),
                                                                                                 (4, 5, 6)]
    for meta in (dict(), dict(palette='random'), dict(palette=None)):
        assert class_colors(dict(meta, classes=('a', 'b'))) == spread_colors(2)


def test_class_colors__bad_input():
    with pytest.raises(ValueError, match='Expected `classes`'):
        class_colors(dict(palette=[(1, 2, 3)]))
    with pytest.raises(ValueError, match='2 classes, but got 1'):
        class_colors(dict(classes=('a', 'b'), palette=[(1, 2, 3)]))


def test_shade__instances_differ_slightly():
    shades = np.array([shade((200, 30, 40), instance) for instance in range(1, 9)])
    distances = np.abs(shades[:, None] - shades[None]).sum(-1)
    assert distances[~np.eye(8, dtype=bool)].min() > 15
    assert (shades[:, 0] > shades[:, 1]).all() and (shades[:, 0] > shades[:, 2]).all()  # all reddish
    assert shade((200, 30, 40), 0) == (200, 30, 40)
    for instance in range(300):
        for color in ((0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 255)):
            assert all(0 <= channel <= 255 for channel in shade(color, instance))


def test_spread_colors__all_different():
    colors = spread_colors(150)
    assert len(set(colors)) == 150 and spread_colors(0) == []
