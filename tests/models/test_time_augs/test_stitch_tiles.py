import tracemalloc

import numpy as np
import pytest

from remax_mm.models.test_time_augs import (Span, TilePrediction, matching_things, plan_tiles, split_axis,
                                            stitch_tiles)
from tests.color_model import assert_same_segments

CAT, DOG = 0, 1
SKY, GRASS, VOID = 2, 3, 4


def _thing(label, instance):
    return label + 1000 * instance


def _cut(image, tile_size, overlap, scores=None):
    """Cut a map into tiles; the instances of each tile are numbered from 7 in row-major order."""
    tiles = []
    for window in plan_tiles(image.shape, tile_size, overlap):
        rows, cols = window
        part = image[rows.start:rows.stop, cols.start:cols.stop].copy()
        things = [value for value in dict.fromkeys(part.ravel().tolist()) if value >= 1000]
        renamed = part.copy()
        for instance, value in enumerate(things, start=7):
            renamed[part == value] = _thing(value % 1000, instance)
        values = np.unique(renamed).tolist()
        tiles.append(
            TilePrediction(window, renamed, {value: scores or 0.5
                                             for value in values if value != VOID}))
    return tiles


def test_split_axis__small_axes():
    assert split_axis(10, 10, 4) == [Span(0, 10, 0, 10)]
    assert split_axis(3, 10, 4) == [Span(0, 3, 0, 3)]
    # 16 = 10 + 6: the overlap is the minimum overlap, and its center is the seam.
    assert split_axis(16, 10, 4) == [Span(0, 10, 0, 8), Span(6, 16, 8, 16)]
    # One pixel more needs a third tile; the starts are spread over 0 to 7.
    assert split_axis(17, 10, 4) == [Span(0, 10, 0, 6), Span(3, 13, 6, 10), Span(7, 17, 10, 17)]


@pytest.mark.parametrize('tile, overlap', [(10, 1), (10, 5), (7, 3)])
def test_split_axis__covers_every_axis(tile, overlap):
    for length in range(tile + 1, 80):
        spans = split_axis(length, tile, overlap)
        assert spans[0].start == spans[0].own_start == 0
        assert spans[-1].stop == spans[-1].own_stop == length
        assert all(span.stop - span.start == tile for span in spans)
        assert all(span.start <= span.own_start < span.own_stop <= span.stop for span in spans)
        for one, other in zip(spans, spans[1:]):
            assert one.own_stop == other.own_start and one.stop - other.start >= overlap
        # One tile less would not be enough.
        assert (len(spans) - 1) * tile - (len(spans) - 2) * overlap < length


@pytest.mark.parametrize('overlap', [0, -1, 6, 10])
def test_plan_tiles__wrong_overlap(overlap):
    with pytest.raises(ValueError, match=f'from 1 to 5.*but got {overlap}'):
        plan_tiles((50, 50), (20, 10), overlap)


def test_matching_things__class_and_iou():
    a, b, dog = _thing(CAT, 1), _thing(CAT, 2), _thing(DOG, 3)
    first = np.array([[a, a, a, a, b, SKY, dog, dog]])
    # IoU of the first pair 3 / 4, of the second 1 / 2; the third pair has different classes; stuff is
    # ignored.
    second = np.array([[_thing(CAT, 9)] * 3 + [_thing(CAT, 8)] * 2 + [SKY] + [_thing(CAT, 7)] * 2])
    assert list(matching_things(first, second, 0.5)) == [(a, _thing(CAT, 9))]
    assert list(matching_things(first, second, 0.49)) == [(a, _thing(CAT, 9)), (b, _thing(CAT, 8))]
    assert list(matching_things(first, second, 0.75)) == []
    assert list(matching_things(first[:, :0], second[:, :0], 0.5)) == []


def test_stitch_tiles__one_tile():
    image = np.full((6, 9), SKY)
    image[1:3, 1:4], image[4:, 5:], image[:, 8] = _thing(CAT, 2), _thing(CAT, 1), VOID
    tile, = _cut(image, (10, 10), 4)
    result = stitch_tiles([tile], image.shape, 5 - 1)
    assert result.panoptic_map.dtype == np.int32
    assert_same_segments(result.panoptic_map, image)


def test_stitch_tiles__joins_a_thing_in_two_tiles():
    image = np.full((10, 16), GRASS)
    image[2:5, 3:14] = _thing(CAT, 1)
    result = stitch_tiles(_cut(image, (10, 10), 4), image.shape, VOID)
    np.testing.assert_array_equal(result.panoptic_map, image)
    assert set(result.scores) == {GRASS, _thing(CAT, 1)}


def test_stitch_tiles__joins_a_thing_in_four_tiles():
    image = np.full((16, 16), VOID)
    image[4:13, 5:12] = _thing(DOG, 1)
    result = stitch_tiles(_cut(image, (10, 10), 4), image.shape, VOID)
    np.testing.assert_array_equal(result.panoptic_map, image)


def test_stitch_tiles__joins_through_a_third_tile():
    """The first tile has no part of the thing; its parts are connected in the bottom right tile only."""
    image = np.full((20, 20), SKY)
    image[3:17, 15:18] = _thing(CAT, 1)
    image[15:17, 3:18] = _thing(CAT, 1)
    tiles = _cut(image, (12, 12), 4)
    assert not (tiles[0].panoptic_map >= 1000).any()
    result = stitch_tiles(tiles, image.shape, VOID)
    np.testing.assert_array_equal(result.panoptic_map, image)


def test_stitch_tiles__does_not_join_things_that_touch():
    image = np.full((10, 16), SKY)
    image[2:5, 2:15] = _thing(CAT, 1)
    image[5:8, 2:15] = _thing(CAT, 2)
    image[8:, 2:15] = _thing(DOG, 3)
    result = stitch_tiles(_cut(image, (10, 10), 4), image.shape, VOID)
    np.testing.assert_array_equal(result.panoptic_map, image)


def test_stitch_tiles__does_not_join_things_on_both_sides_of_a_seam():
    image = np.full((10, 16), SKY)
    image[2:5, 3:8], image[2:5, 8:13] = _thing(CAT, 1), _thing(CAT, 2)
    result = stitch_tiles(_cut(image, (10, 10), 4), image.shape, VOID)
    np.testing.assert_array_equal(result.panoptic_map, image)


def test_stitch_tiles__things_of_different_classes_end_at_the_seam():
    left, right = _cut(np.full((10, 16), _thing(CAT, 1)), (10, 10), 4)
    right = right._replace(panoptic_map=right.panoptic_map + 1, scores={_thing(DOG, 7): 0.5})
    expected = np.full((10, 16), _thing(CAT, 1))
    expected[:, 8:] = _thing(DOG, 2)
    result = stitch_tiles([left, right], (10, 16), VOID)
    np.testing.assert_array_equal(result.panoptic_map, expected)


def test_stitch_tiles__each_tile_provides_its_side_of_the_seam():
    """Each thing is in one tile only. Its pixels on the other side of the seam come from the other tile."""
    left, right = _cut(np.full((10, 16), SKY), (10, 10), 4)
    left.panoptic_map[3, 7:] = _thing(CAT, 7)  # one pixel before the seam, two after
    right.panoptic_map[6, :2] = _thing(CAT, 7)  # all before the seam
    expected = np.full((10, 16), SKY)
    expected[3, 7] = _thing(CAT, 1)
    tiles = [tile._replace(scores={SKY: 0.5, _thing(CAT, 7): 0.9}) for tile in (left, right)]
    result = stitch_tiles(tiles, (10, 16), VOID)
    np.testing.assert_array_equal(result.panoptic_map, expected)
    assert set(result.scores) == {SKY, _thing(CAT, 1)}


def test_stitch_tiles__empty_tiles():
    result = stitch_tiles(_cut(np.full((25, 16), VOID), (10, 10), 4), (25, 16), VOID)
    assert (result.panoptic_map == VOID).all() and result.scores == {}


def test_stitch_tiles__scores_are_means_over_pixels():
    image = np.full((10, 16), SKY)
    image[2:5, 4:14] = _thing(CAT, 1)  # 4 columns before the seam, 6 after
    left, right = _cut(image, (10, 10), 4, scores=0.5)
    right = right._replace(scores={SKY: 0.5, _thing(CAT, 7): 1.0})
    result = stitch_tiles([left, right], image.shape, VOID)
    assert result.scores == {SKY: pytest.approx(0.5), _thing(CAT, 1): pytest.approx(0.4 * 0.5 + 0.6 * 1.0)}
    assert stitch_tiles([left, right._replace(scores=None)], image.shape, VOID).scores is None


def test_stitch_tiles__same_instance_number_of_two_classes():
    """mmdet's encoding allows cat 1 and dog 1 in one map."""
    image = np.full((10, 16), SKY)
    image[1:3], image[5:7] = _thing(CAT, 1), _thing(DOG, 1)
    tiles = [
        TilePrediction(window, image[:, window.cols.start:window.cols.stop], None)
        for window in plan_tiles(image.shape, (10, 10), 4)
    ]
    result = stitch_tiles(tiles, image.shape, VOID)
    assert_same_segments(result.panoptic_map, image)


def test_stitch_tiles__memory_besides_the_map_does_not_grow_with_its_height():

    def peak_besides_the_map(height):

        def draw():  # each tile when it is needed, as a model does
            for window in plan_tiles((height, 100), (50, 50), 10):
                panoptic_map = np.full((50, 50), SKY)
                panoptic_map[:, 20:30] = _thing(CAT, 1)
                yield TilePrediction(window, panoptic_map, None)

        tracemalloc.start()
        result = stitch_tiles(draw(), (height, 100), VOID)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - result.panoptic_map.nbytes

    peak_besides_the_map(100)  # imports and caches of the first call
    # The table of segments grows, but the maps of all tiles would need 1.5 times the memory of the map.
    growth_of_the_map = 3000 * 100 * 4
    assert peak_besides_the_map(4000) - peak_besides_the_map(1000) < 0.2 * growth_of_the_map


def _naive_stitch(image, windows):
    """Join the parts of a thing in two windows if a pixel of the thing is in both windows."""
    parts = {}
    for index, (rows, cols) in enumerate(windows):
        for value in np.unique(image[rows.start:rows.stop, cols.start:cols.stop]).tolist():
            parts[index, value] = {(index, value)}
    for (index, value), group in list(parts.items()):
        for other in range(index):
            one, two = windows[index], windows[other]
            common_values = [
                image[y, x] for y in range(len(image)) for x in (range(image.shape[1]))
                if one.rows.start <= y < one.rows.stop and two.rows.start <= y < two.rows.stop
                and one.cols.start <= x < one.cols.stop and two.cols.start <= x < two.cols.stop
            ]
            if value >= 1000 and value in common_values:
                joined = parts[index, value] | parts[other, value]
                parts.update({part: joined for part in joined})

    expected, numbers = np.zeros_like(image), {}
    for y, x in np.ndindex(*image.shape):
        index = next(index for index, (rows, cols) in enumerate(windows)
                     if rows.own_start <= y < rows.own_stop and cols.own_start <= x < cols.own_stop)
        value = int(image[y, x])
        if value >= 1000:
            number = numbers.setdefault(frozenset(parts[index, value]), len(numbers) + 1)
            value = _thing(value % 1000, number)
        expected[y, x] = value
    return expected


@pytest.mark.parametrize('seed', range(6))
def test_stitch_tiles__random_maps(seed):
    """Random things that cover each other; parts that no overlap connects are not joined."""
    rng = np.random.RandomState(seed)
    size = rng.randint(20, 36, 2)
    image = np.full(size, rng.choice([SKY, GRASS, VOID]))
    for instance in range(1, 9):
        top, left = rng.randint(0, size - 6)
        height, width = rng.randint(2, 20, 2)
        image[top:top + height, left:left + width] = _thing(rng.choice([CAT, DOG]), instance)
    result = stitch_tiles(_cut(image, (12, 15), 5), size, VOID)
    assert_same_segments(result.panoptic_map, _naive_stitch(image, plan_tiles(size, (12, 15), 5)))
