"""The places of labels, on rectangles whose places can be seen by hand, and on random maps."""
import numpy as np
import pytest

from remax_mm.visualization.place_labels import MAX_COVER, REACH, SegmentMask, place_labels


def _segment(top, left, height, width):
    return SegmentMask(np.ones((height, width), bool), left, top)


def _pixels(segment, size):
    """(H, W) bool of a segment."""
    pixels = np.zeros(size, bool)
    height, width = segment.mask.shape
    pixels[segment.top:segment.top + height, segment.left:segment.left + width] = segment.mask
    return pixels


def test_place_labels__in_the_middle_of_a_large_segment():
    label, = place_labels([_segment(10, 20, 61, 101)], [(21, 11)], (200, 300))
    assert label.anchor is None and (label.width, label.height) == (21, 11)
    # The center is 30 pixels from the upper and the lower border: row 40, and columns 50 to 90.
    assert label.top + 5 == 40 and 50 <= label.left + 10 <= 90


def test_place_labels__beside_a_narrow_segment():
    size = (100, 200)
    pole = _segment(10, 50, 81, 3)
    label, = place_labels([pole], [(40, 12)], size)
    assert label.anchor == (51, label.anchor[1]) and 10 <= label.anchor[1] <= 90
    assert label.left + label.width == 50 or label.left == 53  # next to the pole
    # In the corner of the image there is one free side.
    label, = place_labels([_segment(0, 0, 100, 3)], [(40, 12)], size)
    assert label.left == 3


def test_place_labels__a_label_may_not_hide_a_small_segment():
    """21 x 11 pixels fit into 30 x 20, but cover more than MAX_COVER of it."""
    assert 21 * 11 > MAX_COVER * 30 * 20
    label, = place_labels([_segment(40, 40, 20, 30)], [(21, 11)], (100, 100))
    assert label.anchor is not None
    rows, columns = label.area
    assert not _pixels(_segment(40, 40, 20, 30), (100, 100))[rows, columns].any()


def test_place_labels__beside_where_no_other_narrow_segment_is_hidden():
    """Two poles: the left one takes its left side, the right one its right side."""
    labels = place_labels([_segment(0, 60, 100, 4), _segment(0, 100, 100, 4)], [(30, 12)] * 2, (100, 164))
    hidden = _pixels(_segment(0, 60, 100, 4), (100, 164)) | _pixels(_segment(0, 100, 100, 4), (100, 164))
    assert not any(hidden[label.area].any() for label in labels)


def test_place_labels__without_space():
    assert place_labels([_segment(0, 0, 10, 10)], [(11, 5)], (10, 10)) == [None]  # wider than the image
    # The first label takes all of the space.
    labels = place_labels([_segment(0, 0, 10, 4), _segment(0, 4, 10, 1)], [(15, 9)] * 2, (10, 20))
    assert labels[0] is not None and labels[1] is None
    assert place_labels([], [], (10, 10)) == []


@pytest.mark.parametrize('seed', range(4))
def test_place_labels__never_overlap_and_stay_in_the_image(seed):
    rng = np.random.default_rng(seed)
    size, segments = (240, 320), []
    for _ in range(40):
        height, width = rng.integers(1, 80, 2)
        top, left = rng.integers(0, size[0] - height), rng.integers(0, size[1] - width)
        mask = rng.random((height, width)) < rng.choice([0.3, 0.9, 1.])
        mask[rng.integers(height), rng.integers(width)] = True
        segments.append(SegmentMask(mask, int(left), int(top)))
    sizes = [(int(rng.integers(20, 90)), int(rng.integers(9, 14))) for _ in segments]
    labels = place_labels(segments, sizes, size)
    covered = np.zeros(size, int)
    for label, segment, (width, height) in zip(labels, segments, sizes):
        if label is None:
            continue
        own, (rows, columns) = _pixels(segment, size), label.area
        assert covered[rows, columns].shape == (height, width)
        covered[rows, columns] += 1
        if label.anchor is None:
            assert own[rows, columns].all() and width * height <= MAX_COVER * own.sum()
        else:
            x, y = label.anchor
            assert own[y, x] and not own[rows, columns].any()
            nearest = (np.clip(x, columns.start, columns.stop - 1), np.clip(y, rows.start, rows.stop - 1))
            reach = REACH * height + max(segment.mask.shape)
            assert np.abs(np.subtract(nearest, (x, y))).max() <= reach
    assert covered.max() == 1 and sum(label is not None for label in labels) > 5
