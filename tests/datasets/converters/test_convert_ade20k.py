"""Conversion of ADE20K: instances over stuff, with the two orders of the classes."""
import json

import cv2
import numpy as np
import pytest

from remax_mm.datasets import SCENE_PARSING_CLASSES, ADE20KPanopticMapDataset
from remax_mm.datasets.converters import convert_ade20k
from tests.datasets.original_layouts import write_ade20k


def _write_one(folder, semantic, instances):
    """One validation image; ``instances`` is (H, W, 2), class and instance."""
    semantic, instances = np.array(semantic, np.uint8), np.array(instances, np.uint8)
    bgr = np.stack([np.zeros_like(semantic), instances[..., 1], instances[..., 0]], -1)
    for part, name, values in (('images', 'a.jpg', bgr), ('annotations', 'a.png', semantic),
                               ('annotations_instance', 'a.png', bgr)):
        (folder / part / 'validation').mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / part / 'validation' / name), values)


def _convert(folder):
    """Content of the JSON, ids of the PNG, and the text of the report."""
    report = convert_ade20k(folder, 'val')
    content = json.loads((folder / 'ade20k_panoptic_val.json').read_text())
    png = cv2.imread(str(folder / 'ade20k_panoptic_val' / 'a.png'))
    return content, png[..., 2].tolist(), str(report)


NONE = [0, 0]


def test_convert_ade20k__by_hand(tmp_path):
    # Semantic: 1 wall, 3 sky, 8 bed, 13 person, 0 unlabeled. Instances: class 1 bed, 4 person.
    semantic = [[1, 1, 3, 0], [8, 8, 1, 13], [8, 8, 1, 13]]
    instances = [[NONE, NONE, NONE, NONE], [[1, 20], [1, 9], [4, 30], NONE], [[1, 20], [1, 9], NONE, [4, 30]]]
    _write_one(tmp_path, semantic, instances)
    content, ids, text = _convert(tmp_path)
    # Stuff by label, then things by instance number. The person without an instance is void. The instance of
    # a person on the wall is a person.
    assert ids == [[1, 1, 2, 0], [4, 3, 5, 0], [4, 3, 1, 5]]
    names = {category['id']: category['name'] for category in content['categories']}
    segments = content['annotations'][0]['segments_info']
    assert [(s['id'], names[s['category_id']], s['area'], s['bbox'], s['iscrowd']) for s in segments] == [
        (1, 'wall', 3, [0, 0, 3, 3], 0),
        (2, 'sky', 1, [2, 0, 1, 1], 0),
        (3, 'bed', 2, [1, 1, 1, 2], 0),
        (4, 'bed', 2, [0, 1, 1, 2], 0),
        (5, 'person', 2, [2, 1, 2, 2], 0),
    ]
    assert content['images'] == [dict(id='a', file_name='a.jpg', height=3, width=4)]
    assert content['annotations'][0]['file_name'] == 'a.png' and content['annotations'][0]['image_id'] == 'a'
    assert '5 segments: 3 things, 2 stuff, 0 crowd' in text and '16.67% of' in text
    assert '1 pixels: things without an instance' in text


def test_convert_ade20k__stuff_covered_by_things_is_no_segment(tmp_path):
    _write_one(tmp_path, [[3, 1]], [[NONE, [2, 7]]])
    content, ids, _ = _convert(tmp_path)
    assert ids == [[1, 2]]
    assert [s['category_id'] for s in content['annotations'][0]['segments_info']] == [102, 1]  # sky, window


def test_convert_ade20k__every_class(tmp_path):
    """150 pixels, one of each value; each thing is an instance."""
    things = ADE20KPanopticMapDataset.METAINFO['thing_classes']
    instances = [[things.index(name) + 1, number] if name in things else NONE
                 for number, name in enumerate(SCENE_PARSING_CLASSES, 1)]
    _write_one(tmp_path, [list(range(1, 151))], [instances])
    content, ids, _ = _convert(tmp_path)
    assert [category['id'] for category in content['categories']] == list(range(150))
    assert [category['isthing'] for category in content['categories']] == [1] * 100 + [0] * 50
    names = {category['id']: category['name'] for category in content['categories']}
    name_of = {s['id']: names[s['category_id']] for s in content['annotations'][0]['segments_info']}
    assert [name_of[segment_id] for segment_id in ids[0]] == list(SCENE_PARSING_CLASSES)


@pytest.mark.parametrize('semantic, instances, message', [
    ([[151, 1]], [[NONE, NONE]], r'semantic values in \[0, 150\], but got 151'),
    ([[1, 1]], [[[101, 3], NONE]], r'thing classes in \[1, 100\], but instance 3 has class 101'),
    ([[1, 1]], [[[0, 3], NONE]], r'thing classes in \[1, 100\], but instance 3 has class 0'),
    ([[1, 1]], [[[7, 3], [8, 3]]], 'one class for instance 3'),
])
def test_combine_annotations__values_out_of_range(tmp_path, semantic, instances, message):
    _write_one(tmp_path, semantic, instances)
    with pytest.raises(ValueError, match=f'^Cannot convert .*annotations/validation/a.png.*{message}'):
        convert_ade20k(tmp_path, 'val')


def test_convert_ade20k__missing_or_broken_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='^Expected .*images/validation'):
        convert_ade20k(tmp_path, 'val')
    _write_one(tmp_path, [[1, 1]], [[NONE, NONE]])
    folder = tmp_path / 'annotations_instance' / 'validation'
    cv2.imwrite(str(folder / 'a.png'), np.zeros((1, 2), np.uint8))
    with pytest.raises(ValueError, match=r'channels R and G of .*annotations_instance.*a.png'):
        convert_ade20k(tmp_path, 'val')
    cv2.imwrite(str(folder / 'a.png'), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(
            ValueError, match=r'size of .*a.jpg, \(1, 2\).*annotations_instance.*a.png has \(2, 2\)'):
        convert_ade20k(tmp_path, 'val')
    (folder / 'a.png').unlink()
    with pytest.raises(
            FileNotFoundError, match='annotation at .*annotations_instance/validation/a.png.* no such file'):
        convert_ade20k(tmp_path, 'val')
    folder.rmdir()
    with pytest.raises(
            FileNotFoundError, match='folder .*annotations_instance/validation.* a separate download'):
        convert_ade20k(tmp_path, 'val')


def test_convert_ade20k__unknown_split(tmp_path):
    with pytest.raises(ValueError, match=r"one of \['train', 'val'\], but got 'validation'"):
        convert_ade20k(tmp_path, 'validation')


def test_convert_ade20k__other_folder_and_processes(tmp_path):
    write_ade20k(tmp_path, contents=['mixed', 'stuff'])
    for split in ('train', 'val'):
        report = convert_ade20k(tmp_path, split, tmp_path / 'out', processes=2)
        assert (report.images, report.kept_pngs) == (2, 0)
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        f'ade20k_panoptic_{split}{ending}' for split in ('train', 'val') for ending in ('', '.json')
    ]
