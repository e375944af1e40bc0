import cv2
import numpy as np
import pytest

from remax_mm.visualization import enlarge_small, label_panels
from remax_mm.visualization.panels import FONT, wrap_title


def test_label_panels__side_by_side_below_titles():
    panels = [('a', np.full((50, 80, 3), 10, np.uint8)), ('b', np.full((50, 80, 3), 20, np.uint8))]
    drawn = label_panels(panels)
    bar = drawn.shape[0] - 50
    assert bar > 0 and drawn.shape[1] == 164
    assert (drawn[bar:, :80] == 10).all() and (drawn[bar:, 84:] == 20).all()
    assert (drawn[:bar, :80] < 128).any() and (drawn[:bar, 84:] < 128).any()  # the titles


@pytest.mark.parametrize('width', [40, 100, 129, 640])
def test_wrap_title__nothing_is_cut(width):
    title = 'prediction: 12 hallucinated, 3 of the wrong class, averyveryverylongword 1 split'
    lines = wrap_title(title, width, 0.35)
    assert ''.join(lines).replace(' ', '') == title.replace(' ', '')
    assert all(cv2.getTextSize(line, FONT, 0.35, 1)[0][0] <= width for line in lines)
    if width == 640:
        assert lines == [title]


def test_label_panels__long_titles_stay_in_the_picture():
    image, title = np.full((30, 129, 3), 10,
                           np.uint8), 'ground truth: 12 missed, 3 merged, 2 split, 5 poor mask'
    one, several = label_panels([('x', image)]), label_panels([(title, image), ('x', image)])
    assert several.shape[0] > one.shape[0] and several.shape[1] == 2 * 129 + 4
    assert (several[-30:, :129] == 10).all()
    ink = several[:-30, :129].min(axis=(0, 2)) < 128
    assert ink[4:60].any() and not ink[-3:].any()  # the text does not reach the right border
    assert wrap_title('', 100, 0.35) == [''] and wrap_title('ab', 1, 0.35) == ['a', 'b']


def test_enlarge_small__by_whole_numbers():
    small = np.arange(12, dtype=np.int32).reshape(3, 4)
    enlarged = enlarge_small(small, is_map=True)
    assert enlarged.shape == (288, 384)  # 96 times
    np.testing.assert_array_equal(enlarged[::96, ::96], small)
    np.testing.assert_array_equal(enlarged[95::96, 95::96], small)
    photo = np.full((129, 100, 3), 77, np.uint8)
    assert enlarge_small(photo).shape == (387, 300, 3) and (enlarge_small(photo) == 77).all()
    large = np.zeros((384, 5, 3), np.uint8)
    assert enlarge_small(large) is large
    assert enlarge_small(large[:0]).shape == (0, 5, 3)
