"""Conversion of Cityscapes, against a slow reference that follows its documentation pixel by pixel."""
import json

import cv2
import numpy as np
import pytest

from remax_mm.datasets.converters import convert_cityscapes
from tests.datasets.original_layouts import write_cityscapes

# Name: label id, train id, group, color of the labels that are evaluated, in the order of
# cityscapesScripts, helpers/labels.py.
EVALUATED = {
    'road': (7, 0, 'flat', [128, 64, 128]),
    'sidewalk': (8, 1, 'flat', [244, 35, 232]),
    'building': (11, 2, 'construction', [70, 70, 70]),
    'wall': (12, 3, 'construction', [102, 102, 156]),
    'fence': (13, 4, 'construction', [190, 153, 153]),
    'pole': (17, 5, 'object', [153, 153, 153]),
    'traffic light': (19, 6, 'object', [250, 170, 30]),
    'traffic sign': (20, 7, 'object', [220, 220, 0]),
    'vegetation': (21, 8, 'nature', [107, 142, 35]),
    'terrain': (22, 9, 'nature', [152, 251, 152]),
    'sky': (23, 10, 'sky', [70, 130, 180]),
    'person': (24, 11, 'human', [220, 20, 60]),
    'rider': (25, 12, 'human', [255, 0, 0]),
    'car': (26, 13, 'vehicle', [0, 0, 142]),
    'truck': (27, 14, 'vehicle', [0, 0, 70]),
    'bus': (28, 15, 'vehicle', [0, 60, 100]),
    'train': (31, 16, 'vehicle', [0, 80, 100]),
    'motorcycle': (32, 17, 'vehicle', [0, 0, 230]),
    'bicycle': (33, 18, 'vehicle', [119, 11, 32]),
}


def _reference(values, use_train_id):
    """What createPanopticImgs does: each value of a label that is evaluated is a segment and its id."""
    category_of = {label: train_id if use_train_id else label for label, train_id, _, _ in EVALUATED.values()}
    ids = np.zeros(values.shape, int)
    pixels = {}
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            value = int(values[y, x])
            label = value if value < 1000 else value // 1000
            if label in category_of:
                ids[y, x] = value
                pixels.setdefault(value, []).append((y, x))
    segments = []
    for value in sorted(pixels):
        label = value if value < 1000 else value // 1000
        rows, columns = [y for y, _ in pixels[value]], [x for _, x in pixels[value]]
        segments.append(
            dict(
                id=value,
                category_id=category_of[label],
                area=len(rows),
                bbox=[min(columns),
                      min(rows),
                      max(columns) - min(columns) + 1,
                      max(rows) - min(rows) + 1],
                iscrowd=int(label >= 24 and value < 1000)))
    return ids, segments


def _read_ids(path):
    png = cv2.imread(str(path)).astype(int)
    return png[..., 2] + 256 * png[..., 1] + 65536 * png[..., 0]


@pytest.mark.parametrize('use_train_id', [False, True])
def test_convert_cityscapes__equals_the_reference(tmp_path, use_train_id):
    write_cityscapes(tmp_path, ['val'], size=(40, 50))
    # One more image, with every label and every kind of value.
    every = [*range(34), *(1000 * label + number for label in range(24, 34) for number in (0, 1, 999))]
    values = np.random.default_rng(0).choice(every, (40, 50)).astype(np.uint16)
    cv2.imwrite(
        str(tmp_path / 'gtFine' / 'val' / 'aachen' / 'aachen_000099_000019_gtFine_instanceIds.png'), values)

    convert_cityscapes(tmp_path, 'val', use_train_id=use_train_id)

    stem = 'cityscapes_panoptic_val' + '_trainId' * use_train_id
    images, annotations = [], []
    # In the order of the paths, cities first.
    for path in sorted((tmp_path / 'gtFine' / 'val').rglob('*_instanceIds.png')):
        image_id = path.name.replace('_gtFine_instanceIds.png', '')
        ids, segments = _reference(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), use_train_id)
        png = f'{image_id}_gtFine_panoptic.png'
        images.append(dict(id=image_id, width=50, height=40, file_name=f'{image_id}_gtFine_leftImg8bit.png'))
        annotations.append(dict(image_id=image_id, file_name=png, segments_info=segments))
        assert np.array_equal(_read_ids(tmp_path / 'gtFine' / stem / png), ids)
    categories = [
        dict(
            id=train_id if use_train_id else label,
            name=name,
            color=color,
            supercategory=group,
            isthing=int(label >= 24)) for name, (label, train_id, group, color) in EVALUATED.items()
    ]
    assert len(images) == 6
    assert json.loads((tmp_path / 'gtFine' / f'{stem}.json').read_text()) == dict(
        images=images, annotations=annotations, categories=categories)


def test_convert_cityscapes__keeps_files_of_cityscapesscripts(tmp_path):
    """The same content in another layout of the JSON, and PNGs of another encoder, are no conflict."""
    write_cityscapes(tmp_path, ['val'], ['mixed', 'crowd'])
    convert_cityscapes(tmp_path, 'val')
    path = tmp_path / 'gtFine' / 'cityscapes_panoptic_val.json'
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True, indent=4))
    for png in path.with_suffix('').glob('*.png'):
        cv2.imwrite(str(png), cv2.imread(str(png)), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    before = {file: file.stat().st_ino for file in tmp_path.rglob('*')}
    report = convert_cityscapes(tmp_path, 'val')
    assert not report.is_new and 'nothing to do' in str(report)
    assert {file: file.stat().st_ino for file in tmp_path.rglob('*')} == before


@pytest.mark.parametrize('value', [34, 999, 34000])
def test_convert_cityscapes__value_of_no_label(tmp_path, value):
    write_cityscapes(tmp_path, ['val'], ['mixed'])
    path, = tmp_path.rglob('*_instanceIds.png')
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    values[3, 4] = value
    cv2.imwrite(str(path), values)
    with pytest.raises(ValueError, match=rf'^Cannot convert {path}: .*labels in \[0, 33\].*\[{value}\]'):
        convert_cityscapes(tmp_path, 'val')
    assert not list(tmp_path.rglob('*.json'))


def test_convert_cityscapes__missing_or_broken_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='^Expected .*gtFine/train/<city>/.*no such file'):
        convert_cityscapes(tmp_path, 'train')
    write_cityscapes(tmp_path, ['val'], ['mixed'])
    path, = tmp_path.rglob('*_instanceIds.png')
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=str(path)):
        convert_cityscapes(tmp_path, 'val')
