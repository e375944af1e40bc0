"""Lists of segments: areas and boxes against a loop over pixels, and labels of segments."""
import numpy as np
import pytest

from remax_mm.panoptic_format import SegmentLabel, label_segments
from remax_mm.panoptic_format.segments_info import describe_segments

IDS = np.array([[0, 7, 7, 0], [70000, 7, 7, 300], [70000, 70000, 0, 300]], np.int32)
LABELS = [SegmentLabel(300, 4, iscrowd=True), SegmentLabel(70000, 9), SegmentLabel(7, 4)]


def test_describe_segments__by_hand():
    assert describe_segments(IDS, LABELS) == [
        dict(id=300, category_id=4, iscrowd=1, bbox=[3, 1, 1, 2], area=2),
        dict(id=70000, category_id=9, iscrowd=0, bbox=[0, 1, 2, 2], area=3),
        dict(id=7, category_id=4, iscrowd=0, bbox=[1, 0, 2, 2], area=4),
    ]
    assert describe_segments(np.zeros((3, 4), int), []) == []


def test_describe_segments__equals_loop():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 300, (40, 30)) * 1000  # more than 255 segments
    present = [int(value) for value in np.unique(ids) if value]
    got = describe_segments(ids, [SegmentLabel(value, 4) for value in present])
    assert len(got) > 255 and [segment['id'] for segment in got] == present
    for segment in got:
        pixels = [(y, x) for y in range(40) for x in range(30) if ids[y, x] == segment['id']]
        rows, columns = zip(*pixels)
        assert segment['area'] == len(pixels)
        assert segment['bbox'] == [
            min(columns), min(rows),
            max(columns) - min(columns) + 1,
            max(rows) - min(rows) + 1
        ]


@pytest.mark.parametrize('labels, message', [
    (LABELS[1:], r'\[300\] have no label'),
    ([*LABELS, SegmentLabel(8, 4)], r'\[8\] have no pixel'),
    ([*LABELS, SegmentLabel(7, 9)], '4 labels have 3 ids'),
])
def test_describe_segments__labels_and_ids_that_differ(labels, message):
    with pytest.raises(ValueError, match=message):
        describe_segments(IDS, labels)


def test_label_segments__by_hand():
    segments_info = [dict(id=70, category_id=5, iscrowd=1), dict(id=80, category_id=9, area=4)]
    annotation = dict(image_id='a', file_name='a.png', segments_info=segments_info)
    assert label_segments(annotation, {
        9: 1,
        5: 0
    }, 1) == [
        dict(id=70, category=0, is_thing=True, iscrowd=True, area=None),
        dict(id=80, category=1, is_thing=False, iscrowd=False, area=4),
    ]
