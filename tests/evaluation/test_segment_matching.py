import numpy as np
import pytest

from remax_mm.evaluation import joint_histogram, match_segments, segment_ious
from remax_mm.evaluation.segment_matching import MatchedPair, segment_areas
from tests.panoptic_cases import segment


def test_joint_histogram__random_maps():
    rng = np.random.default_rng(5)
    first, second = rng.integers(0, 4, (2, 9, 8))
    expected = {(a, b): int(((first == a) & (second == b)).sum()) for a in range(4) for b in range(4)}
    assert joint_histogram(first, second) == {pair: pixels for pair, pixels in expected.items() if pixels}
    assert joint_histogram(first[:0], second[:0]) == {}


def test_joint_histogram__pairs_in_several_runs():
    first, second = np.array([[7, 7, 0], [7, 7, 7]], np.uint8), np.array([[1, 1, 1], [1, 9000, 1]])
    assert joint_histogram(first, second) == {(0, 1): 1, (7, 1): 4, (7, 9000): 1}
    assert segment_areas({(0, 1): 1, (7, 1): 4, (7, 9000): 1}) == ({0: 1, 7: 5}, {1: 5, 9000: 1})


def test_joint_histogram__negative_values():
    with pytest.raises(ValueError, match='-3'):
        joint_histogram(np.array([[1, 0]]), np.array([[0, -3]]))


def test_segment_ious__unlabeled_pixels_do_not_count_toward_the_prediction():
    # Prediction 8 has 10 pixels, 4 of them unlabeled; id 5 has 9, and they share 6: 6 / (10 + 9 - 6 - 4).
    overlaps = {(0, 8): 4, (5, 8): 6, (5, 9): 3, (6, 9): 1}
    assert segment_ious(overlaps) == {(5, 8): 6 / 9, (5, 9): 3 / 10, (6, 9): 1 / 4}


def test_match_segments__hand_worked():
    # 1 matches 10; 2 and 20 have an IoU of 5 / 13; 30 is ignored because of crowd 3; 4 and 40 differ in
    # class.
    overlaps = {(1, 10): 9, (1, 99): 1, (2, 20): 5, (2, 99): 5, (3, 30): 7, (2, 30): 3, (4, 40): 6}
    segments = [segment(1, 0), segment(2, 1), segment(3, 2, iscrowd=True), segment(4, 1)]
    matching = match_segments(overlaps, segments, {10: 0, 20: 1, 30: 2, 40: 0})
    assert matching.true_positives == [MatchedPair(1, 10, 0.9)]
    assert matching.false_negatives == [2, 4] and matching.false_positives == [20, 40]
