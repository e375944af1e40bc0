"""Panoptic quality of files, against the image by image evaluation and for perfect predictions."""
import numpy as np
import pytest

from remax_mm.evaluation import count_pair
from remax_mm.evaluation.evaluate_files import count_files, quality_as_dict
from remax_mm.panoptic_format import read_panoptic_files
from tests.panoptic_cases import KINDS, NUM_CLASSES, perfect_case, random_case, write_panoptic_files


def _files(folder, cases):
    return read_panoptic_files(**write_panoptic_files(folder, cases))


def test_count_files__sum_over_the_images(tmp_path):
    rng = np.random.default_rng(0)
    files = _files(tmp_path, [random_case(rng) for _ in range(6)])
    counts = count_files(files)
    assert counts.shape == (NUM_CLASSES, 4) and counts.any(axis=0).all()
    np.testing.assert_allclose(counts, np.sum([count_pair(pair, NUM_CLASSES) for pair in files.pairs],
                                              axis=0))


@pytest.mark.parametrize('kind', KINDS)
def test_quality_as_dict__annotation_as_prediction_is_perfect(tmp_path, kind):
    rng = np.random.default_rng(1)
    files = _files(tmp_path, [perfect_case(rng, kind) for _ in range(8)])
    numbers = quality_as_dict(files, count_files(files))
    groups = {
        'things-only': {'All', 'Things'},
        'stuff-only': {'All', 'Stuff'}
    }.get(kind, {'All', 'Things', 'Stuff'})
    assert numbers['images'] == 8 and set(numbers) - {'images', 'classes'} == groups
    for group in groups:
        assert [numbers[group][name] for name in ('PQ', 'SQ', 'RQ')] == [100., 100., 100.]
    absent = [row['isthing'] for row in numbers['classes'] if row['PQ'] is None]
    assert absent == {'things-only': [0] * 3, 'stuff-only': [1] * 3}.get(kind, absent)
    assert not any(row['FN'] or row['FP'] for row in numbers['classes'])


def test_quality_as_dict__by_hand(tmp_path):
    files = _files(tmp_path, [random_case(np.random.default_rng(2))])
    counts = np.zeros((NUM_CLASSES, 4))
    counts[0] = (1.5, 2, 1, 3)  # sum of IoUs, TP, FP, FN
    row = quality_as_dict(files, counts)['classes'][0]
    assert (row['TP'], row['FP'], row['FN'], row['isthing']) == (2, 1, 3, 1)
    assert row['SQ'] == pytest.approx(75) and row['RQ'] == pytest.approx(50) and row['PQ'] == pytest.approx(
        37.5)
