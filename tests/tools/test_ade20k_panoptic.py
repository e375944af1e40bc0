"""The converter of ADE20K: instances over stuff, by the two lists of classes."""
import json

import cv2
import numpy as np
import pytest

from remax_mm.datasets import SCENE_PARSING_CLASSES, ADE20KPanopticMapDataset
from tests.datasets.original_layouts import run_converter, write_ade20k


def _write_one(folder, semantic, instances):
    """One validation image; ``instances`` is (H, W, 2), class and instance."""
    semantic, instances = np.array(semantic, np.uint8), np.array(instances, np.uint8)
    bgr = np.stack([np.zeros_like(semantic), instances[..., 1], instances[..., 0]], -1)
    for part, name, values in (('images', 'a.jpg', bgr), ('annotations', 'a.png', semantic),
                               ('annotations_instance', 'a.png', bgr)):
        (folder / part / 'validation').mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / part / 'validation' / name), values)


def _convert(folder):
    run_converter('ade20k_panoptic', folder, '--splits', 'val')
    content = json.loads((folder / 'ade20k_panoptic_val.json').read_text())
    png = cv2.imread(str(folder / 'ade20k_panoptic_val' / 'a.png'))
    return content, png[..., 2].tolist()


NONE = [0, 0]


def test_convert__by_hand(tmp_path, capsys):
    # Semantic: 1 wall, 3 sky, 8 bed, 13 person, 0 unlabeled. Instances: class 1 bed, 4 person.
    semantic = [[1, 1, 3, 0], [8, 8, 1, 13], [8, 8, 1, 13]]
    instances = [[NONE, NONE, NONE, NONE], [[1, 20], [1, 9], [4, 30], NONE], [[1, 20], [1, 9], NONE, [4, 30]]]
    _write_one(tmp_path, semantic, instances)
    content, ids = _convert(tmp_path)
    # Stuff by label, then things by instance number. A bed without instance would be void, as the person is;
    # the instance of a person that lies on the wall is a person.
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
    out = capsys.readouterr().out
    assert '5 segments: 3 things, 2 stuff, 0 crowd' in out and '16.67% of' in out
    assert '1 pixels: things without an instance' in out


def test_convert__stuff_wholly_under_things_is_no_segment(tmp_path):
    _write_one(tmp_path, [[3, 1]], [[NONE, [2, 7]]])
    content, ids = _convert(tmp_path)
    assert ids == [[1, 2]]
    assert [s['category_id'] for s in content['annotations'][0]['segments_info']] == [102, 1]  # sky, window


def test_convert__every_class(tmp_path):
    """150 pixels, one of each value; things are instances of their own."""
    things = ADE20KPanopticMapDataset.METAINFO['thing_classes']
    instances = [[things.index(name) + 1, number] if name in things else NONE
                 for number, name in enumerate(SCENE_PARSING_CLASSES, 1)]
    _write_one(tmp_path, [list(range(1, 151))], [instances])
    content, ids = _convert(tmp_path)
    assert [category['id'] for category in content['categories']] == list(range(150))
    assert [category['isthing'] for category in content['categories']] == [1] * 100 + [0] * 50
    names = {category['id']: category['name'] for category in content['categories']}
    name_of = {s['id']: names[s['category_id']] for s in content['annotations'][0]['segments_info']}
    assert [name_of[segment_id] for segment_id in ids[0]] == list(SCENE_PARSING_CLASSES)


@pytest.mark.parametrize('semantic, instances, message', [
    ([[151, 1]], [[NONE, NONE]], r'semantic values in \[0, 150\], but got 151'),
    ([[1, 1]], [[[101, 3], NONE]], r'thing classes in \[1, 100\], but instance 3 is of 101'),
    ([[1, 1]], [[[0, 3], NONE]], r'thing classes in \[1, 100\], but instance 3 is of 0'),
    ([[1, 1]], [[[7, 3], [8, 3]]], 'one class for instance 3'),
])
def test_main__values_out_of_range(tmp_path, semantic, instances, message):
    _write_one(tmp_path, semantic, instances)
    with pytest.raises(SystemExit, match=f'error: Cannot convert .*annotations/validation/a.png.*{message}'):
        run_converter('ade20k_panoptic', tmp_path, '--splits', 'val')


def test_main__missing_or_broken_files(tmp_path):
    with pytest.raises(SystemExit, match='error: Expected .*images/validation'):
        run_converter('ade20k_panoptic', tmp_path, '--splits', 'val')
    _write_one(tmp_path, [[1, 1]], [[NONE, NONE]])
    folder = tmp_path / 'annotations_instance' / 'validation'
    cv2.imwrite(str(folder / 'a.png'), np.zeros((1, 2), np.uint8))
    with pytest.raises(SystemExit, match=r'channels R and G of .*annotations_instance.*a.png'):
        run_converter('ade20k_panoptic', tmp_path, '--splits', 'val')
    cv2.imwrite(str(folder / 'a.png'), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(
            SystemExit, match=r'size of .*a.jpg, \(1, 2\).*annotations_instance.*a.png is \(2, 2\)'):
        run_converter('ade20k_panoptic', tmp_path, '--splits', 'val')
    (folder / 'a.png').unlink()
    with pytest.raises(
            SystemExit, match='annotation at .*annotations_instance/validation/a.png.* no such file'):
        run_converter('ade20k_panoptic', tmp_path, '--splits', 'val')
    folder.rmdir()
    with pytest.raises(SystemExit, match='folder .*annotations_instance/validation.*a download of their own'):
        run_converter('ade20k_panoptic', tmp_path, '--splits', 'val')


def test_main__other_folder_and_processes(tmp_path, capsys):
    write_ade20k(tmp_path, contents=['mixed', 'stuff'])
    run_converter('ade20k_panoptic', tmp_path, '--processes', 2, '--out', tmp_path / 'out')
    assert capsys.readouterr().out.count('2 images; 0 of their PNGs') == 2
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        f'ade20k_panoptic_{split}{ending}' for split in ('train', 'val') for ending in ('', '.json')
    ]
