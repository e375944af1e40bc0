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


def _change(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _counts(paths, **kwargs):
    files = read_panoptic_files(**paths)
    return [count_pair(pair, len(files.classes), **kwargs) for pair in files.pairs]


def test_read_panoptic_files__things_first(paths):
    files = read_panoptic_files(**paths)
    # Among themselves, the classes keep the order of the JSON: here that of the ids.
    assert files.classes == ['dog', 'car', 'cat', 'road', 'sea', 'sky']
    assert files.category_ids == [4, 13, 90, 1, 7, 200]
    assert files.is_thing == [True] * 3 + [False] * 3
    assert [pair.image_id for pair in files.pairs] == [0, 1, 2] and files.unused == []
    assert files.images[2]['file_name'] == '000002.jpg'


def test_count_pair__as_from_maps_in_memory(paths, cases):
    order = [1, 2, 0, 5, 4, 3]  # dog, car, cat, road, sea, sky
    for counts, case in zip(_counts(paths), cases):
        expected = count_segments(*case, NUM_CLASSES)
        np.testing.assert_allclose(counts, expected[order], rtol=0, atol=1e-12)
        assert expected.any()


def test_read_panoptic_files__predictions_of_other_images_are_unused(paths):
    _change(paths['gt_json'], lambda gt: gt['annotations'].pop(1))
    files = read_panoptic_files(**paths)
    assert [pair.image_id for pair in files.pairs] == [0, 2] and files.unused == [1]


@pytest.mark.parametrize('which', ['gt_json', 'gt_folder', 'pred_json', 'pred_folder'])
def test_read_panoptic_files__missing(paths, which):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        read_panoptic_files(**dict(paths, **{which: paths[which].parent / 'nowhere'}))


def _first(content):
    return content['annotations'][0]['segments_info'][0]


@pytest.mark.parametrize('which, change, message', [
    ('pred_json', lambda pred: pred.pop('annotations'), "pred.json.*'annotations'"),
    ('gt_json', lambda gt: gt.pop('categories'), "gt.json.*'categories'"),
    ('gt_json', lambda gt: gt['categories'][1].pop('isthing'), 'isthing.*gt.json'),
    ('pred_json', lambda pred: pred['annotations'].pop(0), r'pred.json.*\[2\]'),
    ('pred_json', lambda pred: pred['annotations'].append(pred['annotations'][1]), 'pred.json.*several.*1'),
    ('pred_json', lambda pred: _first(pred).update(category_id=3), '000002.png.*unknown category 3'),
    ('gt_json', lambda gt: _first(gt).update(category_id=3), '000000.png.*unknown category 3'),
    ('pred_json', lambda pred: pred['annotations'][0]['segments_info'].append(_first(pred)), '000002.png.*1'),
    ('pred_json', lambda pred: _first(pred).update(id=0), '000002.png'),
])
def test_read_panoptic_files__bad_json(paths, which, change, message):
    _change(paths[which], change)
    with pytest.raises(ValueError, match=message):
        read_panoptic_files(**paths)


def test_overlap_pair__predicted_ids_that_disagree(paths):
    _change(paths['pred_json'], lambda pred: _first(pred).update(id=777))
    with pytest.raises(
            ValueError,
            match=r'pred/000002.png.*image 2.*PNG lacks the ids \[777\].*JSON lacks the ids \[1\]'):
        _counts(paths)


def test_overlap_pair__annotated_ids_that_disagree(paths):
    _change(paths['gt_json'], lambda gt: _first(gt).update(id=777))
    with pytest.raises(ValueError, match=r'image 0.*gt/000000.png.*\[777\]'):
        _counts(paths)
    assert len(_counts(paths, check_ids=False)) == 3


def test_count_pair__unlisted_annotated_ids_as_panopticapi(tmp_path):
    # As in panopticapi, the unlisted id 9 is not unlabeled: the prediction on it is wrong, and 4 is missed.
    case = Case(np.array([[1001, 1001]]), np.array([[9, 9]]), [segment(4, 1)])
    counts, = _counts(write_panoptic_files(tmp_path, [case]), check_ids=False)
    assert counts[0].tolist() == [0, 0, 1, 1] and not counts[1:].any()


def test_overlap_pair__bad_png(paths):
    write_segment_ids(paths['pred_folder'] / '000001.png', np.zeros((3, 4), int))
    with pytest.raises(ValueError, match=r'pred/000001.png.*\(12, 12\).*gt/000001.png.*\(3, 4\)'):
        _counts(paths)
    (paths['pred_folder'] / '000001.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match='pred/000001.png'):
        _counts(paths)
    (paths['pred_folder'] / '000001.png').unlink()
    with pytest.raises(FileNotFoundError, match='pred/000001.png'):
        _counts(paths)


def test_count_pair__colors_beyond_one_byte(tmp_path):
    ids = np.array([[70000, 70001, 0]])
    case = Case(np.array([[1000, 2001, 6]]), ids, [segment(70000, 0), segment(70001, 1)])
    paths = write_panoptic_files(tmp_path, [case])
    assert mmcv.imread(str(paths['gt_folder'] / '000000.png'))[0, 0].tolist() == [1, 17, 112]  # B, G, R
    counts, = _counts(paths)
    assert counts.sum(0).tolist() == [2, 2, 0, 0]
