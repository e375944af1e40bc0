"""Index maps against a loop over pixels."""
import numpy as np
import pytest

from remax_mm.panoptic_format import find_boxes, index_segments, number_keys
from tests.panoptic_cases import index_by_loop


@pytest.mark.parametrize('seed', range(5))
def test_index_segments__equals_loop(seed):
    rng = np.random.default_rng(seed)
    every = rng.choice(256**3 - 1, 40, replace=False) + 1
    blocks = rng.choice([0, *every], (6, 9))
    ids = np.kron(blocks, np.ones((3, 4), int)).astype(np.int32)
    seen = [i for i in every if (ids == i).any()]
    table, crowd, unknown, unseen = seen[:12], seen[12:15], seen[15:], sorted(set(every) - set(seen))[:3]

    found = index_segments(ids, [*unseen[:1], *table], [*crowd, *unseen[1:]])
    assert np.array_equal(found.segment_map, index_by_loop(ids, [*unseen[:1], *table]))
    assert found.segment_map.dtype == np.uint8
    assert found.unknown_ids == sorted(unknown) and found.unseen_ids == unseen
    assert found.areas.tolist() == [(ids == i).sum() for i in [*unseen[:1], *table]]


@pytest.mark.parametrize('value, index, unknown, unseen', [(0, 0, [], [5]), (5, 1, [], []), (6, 0, [6], [5])])
def test_index_segments__map_with_a_single_value(value, index, unknown, unseen):
    found = index_segments(np.full((3, 4), value, np.int32), [5])
    assert found.segment_map.tolist() == [[index] * 4] * 3
    assert found.unknown_ids == unknown and found.unseen_ids == unseen


@pytest.mark.parametrize('count, dtype', [(255, np.uint8), (256, np.uint16), (400, np.uint16),
                                          (65536, np.uint32)])
def test_index_segments__many_segments(count, dtype):
    ids = np.arange(1, count + 1, dtype=np.int32)[None]
    found = index_segments(ids, ids[0].tolist())
    assert found.segment_map.dtype == dtype and np.array_equal(found.segment_map, ids)


def test_number_keys__by_hand():
    ids, keys = number_keys(np.array([[0, 50, 50, 8], [8, 0, 50, 2**45]]))
    assert ids.tolist() == [[0, 2, 2, 1], [1, 0, 2, 3]] and ids.dtype == np.int32
    assert keys == [8, 50, 2**45]
    ids, keys = number_keys(np.array([[6, 6]]))  # nothing is void
    assert ids.tolist() == [[1, 1]] and keys == [6]
    ids, keys = number_keys(np.zeros((2, 3), int))
    assert ids.tolist() == [[0] * 3] * 2 and keys == []


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.uint32, np.int32])
def test_find_boxes__by_hand(dtype):
    segment_map = np.array([[0, 3, 3, 0], [1, 3, 3, 2], [1, 1, 0, 2]], dtype)
    assert find_boxes(segment_map, 4) == [[0, 1, 2, 2], [3, 1, 1, 2], [1, 0, 2, 2], None]
    assert find_boxes(np.zeros((2, 3), dtype), 0) == []
