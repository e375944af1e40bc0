"""Pairs of annotations and predictions from two JSON files, and errors that name the file and the entry."""
import json

import numpy as np
import pytest

from remax_mm.panoptic_format import read_panoptic_files
from tests.panoptic_cases import random_case, write_panoptic_files


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    return write_panoptic_files(tmp_path, [random_case(rng) for _ in range(3)])


def _change(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize('is_reversed', [False, True])
def test_read_panoptic_files__things_first_then_by_id(paths, is_reversed):
    if is_reversed:
        _change(paths['gt_json'], lambda gt: gt['categories'].reverse())
    files = read_panoptic_files(**paths)
    assert files.classes == ['dog', 'car', 'cat', 'road', 'sea', 'sky']
    assert files.category_ids == [4, 13, 90, 1, 7, 200]
    assert files.is_thing == [True] * 3 + [False] * 3
    assert [pair.image_id for pair in files.pairs] == [0, 1, 2] and files.unused == []
    assert files.images[2]['file_name'] == '000002.jpg'


def test_read_panoptic_files__segments_of_a_pair(paths):
    pair = read_panoptic_files(**paths).pairs[1]
    label_of = {4: 0, 13: 1, 90: 2, 1: 3, 7: 4, 200: 5}
    annotated = json.loads(paths['gt_json'].read_text())['annotations'][1]
    assert pair.gt_png == str(paths['gt_folder'] / annotated['file_name'])
    assert [(s['id'], s['category'], s['is_thing'], s['iscrowd'])
            for s in pair.gt_segments] == [(s['id'], label_of[s['category_id']], label_of[s['category_id']]
                                            < 3, bool(s['iscrowd'])) for s in annotated['segments_info']]
    predicted = json.loads(paths['pred_json'].read_text())['annotations'][1]
    assert predicted['image_id'] == pair.image_id
    assert pair.pred_png == str(paths['pred_folder'] / predicted['file_name'])
    assert pair.pred_labels == {s['id']: label_of[s['category_id']] for s in predicted['segments_info']}


def test_read_panoptic_files__predictions_of_other_images_are_unused(paths):
    _change(paths['gt_json'], lambda gt: gt['annotations'].pop(1))
    files = read_panoptic_files(**paths)
    assert [pair.image_id for pair in files.pairs] == [0, 2] and files.unused == [1]


@pytest.mark.parametrize('which', ['gt_json', 'gt_folder', 'pred_json', 'pred_folder'])
def test_read_panoptic_files__missing_path(paths, which):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        read_panoptic_files(**dict(paths, **{which: paths[which].parent / 'nowhere'}))


def _first(content):
    return content['annotations'][0]['segments_info'][0]


@pytest.mark.parametrize('which, change, message', [
    ('pred_json', lambda pred: pred.pop('annotations'), 'pred.json, .*annotations is missing'),
    ('gt_json', lambda gt: gt.pop('categories'), 'gt.json, .*categories is missing'),
    ('gt_json', lambda gt: gt['categories'][1].pop('isthing'),
     r'gt.json, .*categories\[1\].isthing .* missing'),
    ('gt_json', lambda gt: gt['categories'][1].update(id=1),
     'gt.json, .*2 entries of `categories` have the id 1'),
    ('gt_json', lambda gt: gt['images'][1].pop('id'), r'gt.json, .*images\[1\].id .*is missing'),
    ('pred_json', lambda pred: pred['annotations'].pop(0), 'gt.json in .*pred.json, but 1 have none: 2'),
    ('pred_json', lambda pred: pred['annotations'].append(pred['annotations'][1]),
     'pred.json, .*2 entries of `annotations` have the image_id 1'),
    ('pred_json', lambda pred: _first(pred).update(category_id=3),
     r'pred.json, but .*segment 1 of image 2 \(000002.png\) has the unknown category 3'),
    ('gt_json', lambda gt: _first(gt).update(category_id=3),
     r'gt.json, but .*segment \d+ of image 0 \(000000.png\) has the unknown category 3'),
    ('pred_json', lambda pred: pred['annotations'][0]['segments_info'].append(_first(pred)),
     r'pred.json.* 2 segments of image 2 \(000002.png\) have the id 1$'),
    ('pred_json', lambda pred: _first(pred).update(id=0),
     r"pred.json.*segments_info\[0\].id \(image_id 2, file_name '000002.png'\), but got 0$"),
    ('pred_json', lambda pred: _first(pred).pop('category_id'),
     r'pred.json.*segments_info\[0\].category_id .* is missing'),
    ('pred_json', lambda pred: pred['annotations'][0].pop('file_name'),
     r'pred.json.*annotations\[0\].file_name \(image_id 2\) is missing'),
])
def test_read_panoptic_files__invalid_json(paths, which, change, message):
    _change(paths[which], change)
    with pytest.raises(ValueError, match=f'(?s){message}'):
        read_panoptic_files(**paths)
