"""Evaluation of PNGs against evaluation of maps in memory, and errors that name the PNG."""
import json

import mmcv
import numpy as np
import pytest

from remax_mm.evaluation import count_segments
from remax_mm.evaluation.panoptic_pairs import count_pair
from remax_mm.panoptic_format import read_panoptic_files, write_segment_ids
from tests.panoptic_cases import NUM_CLASSES, Case, random_case, segment, write_panoptic_files


@pytest.fixture
def cases():
    rng = np.random.default_rng(0)
    return [random_case(rng) for _ in range(3)]


@pytest.fixture
def paths(tmp_path, cases):
    return write_panoptic_files(tmp_path, cases)


def _counts(paths, **kwargs):
    files = read_panoptic_files(**paths)
    return [count_pair(pair, len(files.classes), **kwargs) for pair in files.pairs]


def _change_first_id(path):
    content = json.loads(path.read_text())
    content['annotations'][0]['segments_info'][0]['id'] = 777
    path.write_text(json.dumps(content))


def test_count_pair__equals_maps_in_memory(paths, cases):
    order = [1, 2, 0, 5, 4, 3]  # dog, car, cat, road, sea, sky
    for counts, case in zip(_counts(paths), cases):
        expected = count_segments(*case, NUM_CLASSES)
        np.testing.assert_allclose(counts, expected[order], rtol=0, atol=1e-12)
        assert expected.any()


def test_overlap_pair__predicted_ids_that_differ(paths):
    _change_first_id(paths['pred_json'])
    with pytest.raises(
            ValueError,
            match=r'pred/000002.png.*image 2.*PNG lacks the ids \[777\].*JSON lacks the ids \[1\]'):
        _counts(paths)


def test_overlap_pair__annotated_ids_that_differ(paths):
    _change_first_id(paths['gt_json'])
    with pytest.raises(ValueError, match=r'image 0.*gt/000000.png.*\[777\]'):
        _counts(paths)
    assert len(_counts(paths, check_ids=False)) == 3


def test_count_pair__unlisted_annotated_ids_as_panopticapi(tmp_path):
    # As in panopticapi, the unlisted id 9 is not unlabeled: the prediction on it is wrong, and 4 is missed.
    case = Case(np.array([[1001, 1001]]), np.array([[9, 9]]), [segment(4, 1)])
    counts, = _counts(write_panoptic_files(tmp_path, [case]), check_ids=False)
    assert counts[0].tolist() == [0, 0, 1, 1] and not counts[1:].any()


def test_overlap_pair__invalid_png(paths):
    write_segment_ids(paths['pred_folder'] / '000001.png', np.zeros((3, 4), int))
    with pytest.raises(ValueError, match=r'pred/000001.png.*\(12, 12\).*gt/000001.png.*\(3, 4\)'):
        _counts(paths)
    (paths['pred_folder'] / '000001.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match='pred/000001.png'):
        _counts(paths)
    (paths['pred_folder'] / '000001.png').unlink()
    with pytest.raises(FileNotFoundError, match='pred/000001.png'):
        _counts(paths)


def test_count_pair__ids_above_255(tmp_path):
    ids = np.array([[70000, 70001, 0]])
    case = Case(np.array([[1000, 2001, 6]]), ids, [segment(70000, 0), segment(70001, 1)])
    paths = write_panoptic_files(tmp_path, [case])
    assert mmcv.imread(str(paths['gt_folder'] / '000000.png'))[0, 0].tolist() == [1, 17, 112]  # B, G, R
    counts, = _counts(paths)
    assert counts.sum(0).tolist() == [2, 2, 0, 0]
