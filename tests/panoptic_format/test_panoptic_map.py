"""Values label + 1000 * instance from and to segment ids and indices, by hand."""
import numpy as np
import pytest

from remax_mm.panoptic_format import annotated_panoptic_map, number_segments, to_panoptic_map


def test_to_panoptic_map__by_hand():
    drawn = to_panoptic_map(np.array([[0, 1, 2, 3]], np.uint8), [1, 2, 1], [True, False, True], 3)
    assert drawn.tolist() == [[3, 1001, 2, 3001]]
    assert to_panoptic_map(np.zeros((1, 2), np.uint8), [], [], 3).tolist() == [[3, 3]]


def test_annotated_panoptic_map__crowd_and_unlisted_ids_are_void():
    segments = [
        dict(id=90, category=1, is_thing=True, iscrowd=True),
        dict(id=70, category=1, is_thing=True, iscrowd=False),
        dict(id=80, category=2, is_thing=False),
    ]
    drawn = annotated_panoptic_map(np.array([[0, 70, 80, 90, 5]]), segments, 3)
    assert drawn.tolist() == [[3, 1001, 2, 3, 3]] and drawn.dtype == np.int32


def test_number_segments__void_is_0_and_stuff_label_0_is_not():
    ids, segments = number_segments(np.array([[0, 0, 2], [1001, 2, 0]]), num_classes=2)
    assert ids.tolist() == [[1, 1, 0], [2, 0, 1]]
    assert segments == [
        dict(id=1, value=0, label=0, area=3, bbox=[0, 0, 3, 2]),
        dict(id=2, value=1001, label=1, area=1, bbox=[0, 1, 1, 1]),
    ]


def test_number_segments__all_void():
    ids, segments = number_segments(np.full((2, 3), 5), num_classes=5)
    assert not ids.any() and segments == []


def test_number_segments__unknown_label():
    with pytest.raises(ValueError, match='1007'):
        number_segments(np.array([[1007]]), num_classes=5)
