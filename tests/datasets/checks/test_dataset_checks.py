"""A small dataset is drawn whole, then spoilt in one place at a time: only that defect is found."""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from remax_mm.datasets import LoadImageStrict, LoadPanopticMap, PanopticMapDataset
from remax_mm.datasets.checks import KINDS, Category, check_classes, check_image, check_json, find_unused_pngs
from remax_mm.panoptic_format import write_segment_ids

CATEGORIES = [
    dict(id=3, name='cat', isthing=1),
    dict(id=7, name='grass', isthing=0),
    dict(id=9, name='sky', isthing=0)
]
# Two things, two stuff classes, a crowd and a row of void, on 6 x 8 pixels.
IDS = np.array([
    [50, 50, 50, 50, 50, 50, 50, 50],
    [50, 11, 11, 50, 50, 12, 12, 50],
    [40, 11, 11, 40, 40, 12, 12, 40],
    [40, 40, 40, 40, 40, 40, 40, 40],
    [40, 40, 40, 60, 60, 40, 40, 40],
    [0, 0, 0, 0, 0, 0, 0, 0],
])
SEGMENTS = [
    dict(id=11, category_id=3, iscrowd=0, area=4, bbox=[1, 1, 2, 2]),
    dict(id=12, category_id=3, iscrowd=0, area=4, bbox=[5, 1, 2, 2]),
    dict(id=40, category_id=7, iscrowd=0, area=18, bbox=[0, 2, 8, 3]),
    dict(id=50, category_id=9, iscrowd=0, area=12, bbox=[0, 0, 8, 2]),
    dict(id=60, category_id=3, iscrowd=1, area=2, bbox=[3, 4, 2, 1]),
]


@pytest.fixture
def content(tmp_path):
    """The JSON of a sound dataset of two equal images, whose files lie in ``images`` and ``pngs``."""
    for folder in ('images', 'pngs'):
        (tmp_path / folder).mkdir()
    for stem in ('a', 'b'):
        cv2.imwrite(str(tmp_path / 'images' / f'{stem}.jpg'), np.full((6, 8, 3), 90, np.uint8))
        write_segment_ids(tmp_path / 'pngs' / f'{stem}.png', IDS)
    return json.loads(
        json.dumps(
            dict(
                images=[dict(id=stem, file_name=f'{stem}.jpg', height=6, width=8) for stem in 'ab'],
                annotations=[
                    dict(image_id=stem, file_name=f'{stem}.png', segments_info=SEGMENTS) for stem in 'ab'
                ],
                categories=CATEGORIES)))


def _check(content: dict, folder: Path) -> list:
    """Findings of the whole dataset, as (kind, name of the file)."""
    report = check_json(content, 'panoptic.json', str(folder / 'images'), str(folder / 'pngs'))
    categories = {category.id: category for category in report.categories}
    findings = [*report.findings, *find_unused_pngs(report.tasks, str(folder / 'pngs'))]
    for task in report.tasks:
        findings += check_image(task, categories).findings
    return [(finding.kind, Path(finding.file).name) for finding in findings]


def test_check__nothing_in_a_sound_data_set(content, tmp_path):
    assert _check(content, tmp_path) == []


def _drop_isthing(content, folder):
    del content['categories'][0]['isthing']


def _repeat_category(content, folder):
    content['categories'].append(dict(id=10, name='sky', isthing=0))


def _repeat_image(content, folder):
    content['images'].append(dict(content['images'][1]))


def _repeat_annotation(content, folder):
    content['annotations'].append(content['annotations'][1])


def _annotate_nothing(content, folder):
    content['annotations'].append(dict(image_id='c', file_name='c.png', segments_info=[]))


def _forget_annotation(content, folder):
    del content['annotations'][1]
    (folder / 'pngs' / 'b.png').unlink()


def _change_segment(index, **values):

    def change(content, folder):
        content['annotations'][1]['segments_info'][index].update(values)

    return change


def _change_pixels(row, column, value):

    def change(content, folder):
        ids = IDS.copy()
        ids[row, column] = value
        write_segment_ids(folder / 'pngs' / 'b.png', ids)

    return change


def _remove(name):

    def change(content, folder):
        (folder / name).unlink()

    return change


def _cut(name):

    def change(content, folder):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:len(whole) // 2])

    return change


def _shrink_image(content, folder):
    cv2.imwrite(str(folder / 'images' / 'b.jpg'), np.zeros((8, 6, 3), np.uint8))


def _shrink_png(content, folder):
    content['images'][1]['height'] = 7
    cv2.imwrite(str(folder / 'images' / 'b.jpg'), np.zeros((7, 8, 3), np.uint8))


def _split_stuff(content, folder):
    content['annotations'][1]['segments_info'][3]['category_id'] = 7


def _keep_crowd_only(content, folder):
    content['annotations'][1]['segments_info'] = [SEGMENTS[4]]
    write_segment_ids(folder / 'pngs' / 'b.png', np.where(IDS == 60, 60, 0))


def _add_png(content, folder):
    write_segment_ids(folder / 'pngs' / 'c.png', IDS)


DEFECTS = [
    (_drop_isthing, 'isthing_missing', 'panoptic.json'),
    (_repeat_category, 'category_twice', 'panoptic.json'),
    (_repeat_image, 'image_id_twice', 'panoptic.json'),
    (_repeat_annotation, 'annotation_twice', 'panoptic.json'),
    (_annotate_nothing, 'annotation_without_image', 'panoptic.json'),
    (_forget_annotation, 'image_without_annotation', 'b.jpg'),
    (_change_segment(0, category_id=99), 'unknown_category', 'b.png'),
    (_change_pixels(0, 0, 77), 'id_only_in_png', 'b.png'),
    (_change_segment(0, area=5), 'area_wrong', 'b.png'),
    (_change_segment(0, bbox=[0, 1, 2, 2]), 'bbox_wrong', 'b.png'),
    (_remove('images/b.jpg'), 'image_missing', 'b.jpg'),
    (_remove('pngs/b.png'), 'png_missing', 'b.png'),
    (_cut('images/b.jpg'), 'image_broken', 'b.jpg'),
    (_cut('pngs/b.png'), 'png_broken', 'b.png'),
    (_shrink_image, 'size_differs', 'b.jpg'),
    (_shrink_png, 'size_differs', 'b.png'),
    (_split_stuff, 'stuff_in_parts', 'b.png'),
    (_change_segment(4, category_id=9), 'stuff_is_crowd', 'b.png'),
    (_keep_crowd_only, 'all_void', 'b.png'),
    (_add_png, 'file_unused', 'c.png'),
]


@pytest.mark.parametrize('spoil, kind, file', DEFECTS, ids=[f'{kind}-{file}' for _, kind, file in DEFECTS])
def test_check__one_defect(content, tmp_path, spoil, kind, file):
    spoil(content, tmp_path)
    found = _check(content, tmp_path)
    # A pixel that changes hands also changes an area.
    assert {found_kind for found_kind, _ in found} <= {kind, 'area_wrong'}
    assert (kind, file) in found


def test_check__segments_that_overlap(content, tmp_path):
    _change_segment(1, id=11)(content, tmp_path)
    found = _check(content, tmp_path)
    assert ('segment_id_twice', 'b.png') in found
    assert ('id_only_in_png', 'b.png') in found  # the pixels of the id that is gone


def test_check__an_empty_segment(content, tmp_path):
    content['annotations'][1]['segments_info'].append(dict(id=13, category_id=3, iscrowd=0, area=3))
    assert _check(content, tmp_path) == [('segment_empty', 'b.png')]


@pytest.mark.parametrize('segment_id', [0, 256**3])
def test_check__an_id_that_no_pixel_can_have(content, tmp_path, segment_id):
    content['annotations'][1]['segments_info'].append(dict(id=segment_id, category_id=3, iscrowd=0))
    assert ('segment_id_invalid', 'b.png') in _check(content, tmp_path)


@pytest.mark.parametrize('part, key, message', [
    ('categories', 'name', 'entry 1 of `categories` lacks name'),
    ('images', 'height', 'entry 1 of `images` lacks height'),
    ('annotations', 'segments_info', 'entry 1 of `annotations` lacks segments_info'),
])
def test_check__an_entry_without_a_key(content, tmp_path, part, key, message):
    del content[part][1][key]
    assert ('key_missing', 'panoptic.json') in _check(content, tmp_path)  # and the rest is looked at
    found = check_json(content, 'panoptic.json', 'images', 'pngs').findings
    assert [finding.message for finding in found if finding.kind == 'key_missing'] == [message]


def test_check__a_segment_without_a_key(content, tmp_path):
    del content['annotations'][1]['segments_info'][2]['category_id']
    found = check_json(content, 'panoptic.json', 'images', 'pngs')
    assert [(finding.kind, finding.message) for finding in found.findings] == [
        ('key_missing', 'entry 1 of `annotations` lacks segments_info.category_id'),
        ('image_without_annotation', "image id 'b'"),
    ]
    assert [task.image['id'] for task in found.tasks] == ['a']


def test_check_image__turned_by_its_exif_data(content, tmp_path):
    # Training reads the photo upright, 6 x 8, whatever the order of its pixels in the file.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (6, 8)).save(tmp_path / 'images' / 'b.jpg', exif=exif)
    assert _check(content, tmp_path) == []


@pytest.mark.parametrize('spoil, kind, file', DEFECTS, ids=[f'{kind}-{file}' for _, kind, file in DEFECTS])
def test_check__errors_are_those_of_training(content, tmp_path, spoil, kind, file):
    spoil(content, tmp_path)
    (tmp_path / 'panoptic.json').write_text(json.dumps(content))

    def load():
        data = PanopticMapDataset(
            data_root=str(tmp_path),
            ann_file='panoptic.json',
            data_prefix=dict(img='images', seg='pngs'),
            pipeline=[LoadImageStrict(), LoadPanopticMap()])
        return [data[number] for number in range(len(data))]

    if KINDS[kind].is_error:
        with pytest.raises((ValueError, FileNotFoundError), match=rf'\b{Path(file).stem}\.(png|jpg|json)'):
            load()
    else:
        assert len(load()) == 2


@pytest.mark.parametrize('segment_id', [0, 256**3])
def test_check__an_id_that_no_pixel_can_have_in_training(content, tmp_path, segment_id):
    segments = [dict(s, category=0, is_thing=True)
                for s in SEGMENTS] + [dict(id=segment_id, category=0, is_thing=True, iscrowd=0)]
    record = dict(seg_map_path=str(tmp_path / 'pngs' / 'b.png'), height=6, width=8, segments_info=segments)
    with pytest.raises(ValueError, match=rf'from 1 to 256\^3 - 1 .*b.png, but got \[{segment_id}\]'):
        LoadPanopticMap()(record)


def test_check_json__not_panoptic(content):
    del content['categories']
    with pytest.raises(ValueError, match=r"panoptic.json, but \['categories'\] are missing"):
        check_json(content, 'panoptic.json', 'images', 'pngs')


def test_check_classes__by_name():
    categories = [Category(1, 'cat', True), Category(2, 'sky', True), Category(3, 'sea', False)]
    found = check_classes(categories, ['cat', 'dog'], ['sky'], 'panoptic.json')
    assert [(finding.kind, finding.message) for finding in found] == [
        ('isthing_contradicts', "'sky' is a thing here, but not in the class list"),
        ('classes_differ', "the class list lacks 'sea'"),
        ('classes_differ', "the JSON lacks 'dog'"),
    ]


def test_check_image__counts_by_hand(content, tmp_path):
    report = check_json(content, 'panoptic.json', str(tmp_path / 'images'), str(tmp_path / 'pngs'))
    image = check_image(report.tasks[0], {category.id: category for category in report.categories})
    assert (image.pixels, image.void, image.crowd) == (48, 8, 2)
    assert image.class_pixels == {3: 8, 7: 18, 9: 12}
    assert image.class_segments == {3: 2, 7: 1, 9: 1}


def test_kinds__all_tested():
    tested = {kind for _, kind, _ in DEFECTS}
    assert tested | {
        'key_missing', 'segment_id_twice', 'segment_empty', 'segment_id_invalid', 'isthing_contradicts',
        'classes_differ'
    } == set(KINDS)
