"""One defect in the JSON of a correct dataset: the check finds only that, and errors stop training."""
from pathlib import Path

import pytest

from remax_mm.datasets.checks import Category, check_classes, check_json
from remax_mm.panoptic_format import KINDS, write_segment_ids
from tests.datasets.checks import test_image_check
from tests.datasets.checks.conftest import IDS


def _drop_isthing(checked_set):
    del checked_set.content['categories'][0]['isthing']


def _repeat_category(checked_set):
    checked_set.content['categories'].append(dict(id=10, name='sky', isthing=0))


def _repeat_image(checked_set):
    checked_set.content['images'].append(dict(checked_set.content['images'][1], file_name='c.jpg'))


def _repeat_photo(checked_set):
    checked_set.content['images'][1]['file_name'] = 'a.jpg'


def _quote_iscrowd(checked_set):
    checked_set.content['annotations'][1]['segments_info'][0]['iscrowd'] = '0'


def _repeat_annotation(checked_set):
    checked_set.content['annotations'].append(dict(checked_set.content['annotations'][1], file_name='c.png'))


def _add_annotation(checked_set):
    checked_set.content['annotations'].append(dict(image_id='c', file_name='c.png', segments_info=[]))


def _remove_annotation(checked_set):
    del checked_set.content['annotations'][1]
    (checked_set.folder / 'pngs' / 'b.png').unlink()


def _add_png(checked_set):
    write_segment_ids(checked_set.folder / 'pngs' / 'c.png', IDS)


DEFECTS = [
    (_drop_isthing, 'isthing_missing', 'panoptic.json'),
    (_repeat_category, 'category_repeated', 'panoptic.json'),
    (_repeat_image, 'image_id_repeated', 'panoptic.json'),
    (_repeat_annotation, 'annotation_repeated', 'panoptic.json'),
    (_repeat_photo, 'file_repeated', 'panoptic.json'),
    (_quote_iscrowd, 'value_invalid', 'panoptic.json'),
    (_add_annotation, 'annotation_without_image', 'panoptic.json'),
    (_remove_annotation, 'image_without_annotation', 'panoptic.json'),
    (_add_png, 'file_unused', 'c.png'),
]
IDS_OF_DEFECTS = [kind for _, kind, _ in DEFECTS]


@pytest.mark.parametrize('add_defect, kind, file', DEFECTS, ids=IDS_OF_DEFECTS)
def test_check_json__finds_only_the_defect(checked_set, add_defect, kind, file):
    checked_set.assert_finds(add_defect, kind, file)


@pytest.mark.parametrize('add_defect, kind, file', DEFECTS, ids=IDS_OF_DEFECTS)
def test_check_json__errors_stop_training(checked_set, add_defect, kind, file):
    add_defect(checked_set)
    if KINDS[kind].is_error:
        with pytest.raises((ValueError, FileNotFoundError), match=rf'\b{Path(file).stem}\.(png|jpg|json)'):
            checked_set.load()
    else:
        assert len(checked_set.load()) == 2


@pytest.mark.parametrize('part, key, message', [
    ('categories', 'name', 'categories[1].name (id 7) is missing'),
    ('images', 'height', "images[1].height (id 'b', file_name 'b.jpg') is missing"),
    ('annotations', 'segments_info',
     "annotations[1].segments_info (image_id 'b', file_name 'b.png') is missing"),
])
def test_check_json__entry_without_a_key(checked_set, part, key, message):
    del checked_set.content[part][1][key]
    assert ('key_missing', 'panoptic.json') in checked_set.check()  # the other entries are checked
    found = checked_set.check_json().findings
    assert [finding.message for finding in found if finding.kind == 'key_missing'] == [message]


def test_check_json__segment_without_a_key(checked_set):
    del checked_set.content['annotations'][1]['segments_info'][2]['category_id']
    found = checked_set.check_json()
    assert [(finding.kind, finding.message) for finding in found.findings] == [
        ('key_missing', 'annotations[1].segments_info[2].category_id '
         "(image_id 'b', file_name 'b.png', segment id 40) is missing"),
    ]
    assert [task.image['id'] for task in found.tasks] == ['a']


def test_check_json__name_of_the_png_from_the_image(checked_set):
    for annotation in checked_set.content['annotations']:
        del annotation['file_name']
    assert checked_set.check() == []


def test_check_json__not_panoptic(checked_set):
    del checked_set.content['categories']
    found = checked_set.check_json()
    assert [(finding.kind, finding.message)
            for finding in found.findings][0] == ('key_missing', 'categories is missing')


def test_check_json__not_json(checked_set):
    path = checked_set.folder / 'panoptic.json'
    path.write_text('{"images": [')
    report = check_json(str(path), 'images', 'pngs', str, str)
    assert [finding.kind for finding in report.findings] == ['json_invalid'] and report.tasks == []


def test_check_classes__by_name():
    categories = [Category(1, 'cat', True), Category(2, 'sky', True), Category(3, 'sea', False)]
    found = check_classes(categories, ['cat', 'dog'], ['sky'], 'panoptic.json')
    assert [(finding.kind, finding.message) for finding in found] == [
        ('isthing_differs', "'sky' is a thing in the JSON, but not in the class list"),
        ('classes_differ', "the class list lacks 'sea'"),
        ('classes_differ', "the JSON lacks 'dog'"),
    ]


def test_kinds__all_tested():
    defects = [*DEFECTS, *test_image_check.DEFECTS, *test_image_check.INVALID_IDS]
    tested = {kind for _, kind, _ in defects}
    assert tested | {'json_invalid', 'key_missing', 'isthing_differs', 'classes_differ'} == set(KINDS)
