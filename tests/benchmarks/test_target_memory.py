"""Both sides have the same segments, and the growth of the memory is measured correctly."""
import numpy as np
import pytest
import torch

from remax_mm.benchmarks.target_memory import (SIDE, GroundTruth, compare_targets, measure_growth, pack_mmdet,
                                               pack_ours)


def test_pack__both_sides_have_the_same_segments():
    ours, (labels, masks) = pack_ours(129).make_targets(), pack_mmdet(129).make_targets()
    assert masks.shape == (60, 129, 129) and (masks.sum(0) == 1).all()
    by_label = torch.argsort(labels)  # the order of mmdet's stuff segments is arbitrary
    assert torch.equal(labels[by_label], ours.labels[0])
    assert torch.equal(masks[by_label, ::4, ::4].float(), ours.masks[0])


def test_pack__bytes_of_the_ground_truth():
    assert pack_ours(129).num_bytes == 129**2
    assert pack_mmdet(129).num_bytes == (40 + 4) * 129**2  # uint8 masks of the things, an int32 map


@pytest.mark.slow
def test_measure_growth__of_a_known_size():
    ground_truth = GroundTruth(3 * 2**20, lambda: np.ones(200 * 2**20, np.uint8))
    memory = measure_growth(lambda: ground_truth)
    assert memory.ground_truth == 3 and memory.targets == pytest.approx(200, abs=5)
    assert memory.total == memory.ground_truth + memory.targets


@pytest.mark.slow
def test_compare_targets__at_most_a_tenth():
    mmdet, ours = compare_targets()
    assert mmdet.targets > 60 * SIDE**2 * 8 / 2**20  # its masks are int64
    assert mmdet.targets >= 10 * ours.targets > 0
