"""One wrong value or key in a correct JSON: one finding, which names the entry."""
import copy
import json

import pytest

from remax_mm.panoptic_format import (AnnotationFile, EvaluatedFile, ImageFile, LoadedFile, PredictionFile,
                                      check_entries, raise_errors, read_annotations)
from remax_mm.panoptic_format.findings import Finding

CONTENT = dict(
    info=dict(year=2024),
    images=[
        dict(id=1, file_name='a.jpg', height=6, width=8, license=3),
        dict(id='b', file_name='ä.jpg', height=5, width=8)
    ],
    annotations=[
        dict(image_id='b', file_name='b.png', segments_info=[]),
        dict(
            image_id=1,
            file_name='a.png',
            segments_info=[
                dict(id=256**3 - 1, category_id=0),
                dict(id=1, category_id=9, iscrowd=1, area=4.0, bbox=[0, 0.5, 2, 2], score=0.5)
            ])
    ],
    categories=[
        dict(id=0, name='cat', isthing=1, color=[0, 128, 255], supercategory='animal'),
        dict(id=9, name='sky', isthing=0)
    ])


def _read(folder, content, schema=AnnotationFile):
    (folder / 'a.json').write_text(content if isinstance(content, str) else json.dumps(content))
    return read_annotations(str(folder / 'a.json'), schema)


def _check(folder, content, **kwargs):
    found = _read(folder, content)
    return [*found.findings, *check_entries(found, 'a.json', **kwargs)]


@pytest.mark.parametrize('schema', [AnnotationFile, ImageFile, EvaluatedFile, PredictionFile, LoadedFile])
def test_read_annotations__content_of_the_file(tmp_path, schema):
    found = _read(tmp_path, CONTENT, schema)
    expected = copy.deepcopy(CONTENT)
    if schema in (ImageFile, LoadedFile):  # what a dataset does not need
        kept = ('id', 'category_id', 'iscrowd', 'area')
        for annotation in expected['annotations']:
            annotation['segments_info'] = [{
                **{
                    key: segment[key]
                    for key in kept if key in segment
                },
                **{
                    key: None
                    for key in ('bbox', ) if key in segment
                }
            } for segment in annotation['segments_info']]
    assert found.content == expected and found.findings == []
    assert check_entries(found, 'a.json') == []


SEGMENT = "annotations[1].segments_info[1].{} (image_id 1, file_name 'a.png', segment id 1)"


@pytest.mark.parametrize('location, values, kind, expected, place', [
    (('annotations', 1, 'segments_info', 1, 'iscrowd'), ['0', 2, True, 1.0, -1, None], 'value_invalid',
     '0 or 1', SEGMENT.format('iscrowd')),
    (('annotations', 1, 'segments_info', 1, 'area'), ['4', -1, float('nan'), float('inf'), [], None],
     'value_invalid', 'a finite number of at least 0', SEGMENT.format('area')),
    (('annotations', 1, 'segments_info', 1, 'bbox'),
     [[0, 0, 1], [0, 0, 1, float('inf')], ['0', 0, 1, 1], {}, 3], 'value_invalid',
     'four finite numbers x, y, width, height', SEGMENT.format('bbox')),
    (('annotations', 1, 'segments_info', 1, 'category_id'), ['9', 9.0, -1, False], 'value_invalid',
     'an integer of at least 0', SEGMENT.format('category_id')),
    (('annotations', 1, 'segments_info', 1, 'id'), [0, -1, 256**3], 'segment_id_invalid',
     'an integer from 1 to 16777215', SEGMENT.replace(', segment id 1', '').format('id')),
    (('annotations', 1, 'segments_info', 1, 'id'), ['1', 1.0, None], 'value_invalid',
     'an integer from 1 to 16777215', SEGMENT.replace(', segment id 1', '').format('id')),
    (('annotations', 1, 'segments_info', 1), ['x', [], None], 'value_invalid', 'an object',
     "annotations[1].segments_info[1] (image_id 1, file_name 'a.png')"),
    (('annotations', 1, 'segments_info'), [{}, 'x', None], 'value_invalid', 'a list',
     "annotations[1].segments_info (image_id 1, file_name 'a.png')"),
    (('annotations', 1, 'file_name'), ['', 'a\0.png', 3, None, ['a.png']], 'value_invalid',
     'a string without control characters', 'annotations[1].file_name (image_id 1)'),
    (('annotations', 1, 'image_id'), [1.0, None, [1], True, 2**63], 'value_invalid',
     'an integer of at least 0 or a string', "annotations[1].image_id (file_name 'a.png')"),
    (('images', 0, 'height'), [0, -6, 6.0, '6', 2**20 + 1, float('nan'), None], 'value_invalid',
     'an integer from 1 to 1048576', "images[0].height (id 1, file_name 'a.jpg')"),
    (('images', 0, 'file_name'), [None, '', 7], 'value_invalid', 'a string without control characters',
     'images[0].file_name (id 1)'),
    (('categories', 0, 'name'), [3, None, '', ['cat']], 'value_invalid',
     'a string without control characters', 'categories[0].name (id 0)'),
    (('categories', 0, 'isthing'), ['1', True, 2, None, 0.5], 'isthing_missing', '0 or 1',
     "categories[0].isthing (id 0, name 'cat')"),
    (('categories', 0, 'color'), [[1, 2], [1, 2, 256], ['1', 2, 3], 'red', None], 'value_invalid',
     'three integers from 0 to 255', "categories[0].color (id 0, name 'cat')"),
    (('categories', ), [[]], 'value_invalid', 'at least one entry', 'categories'),
    (('images', ), [[]], 'value_invalid', 'at least one entry', 'images'),
    (('images', ), [{}, 'x', None], 'value_invalid', 'a list', 'images'),
    ((), [[], 'x', None, 3], 'value_invalid', 'an object', 'the file'),
])  # yapf: disable
def test_read_annotations__wrong_value(tmp_path, location, values, kind, expected, place):
    for value in values:
        content = copy.deepcopy(CONTENT)
        entry = content
        for key in location[:-1]:
            entry = entry[key]
        if location:
            entry[location[-1]] = value
        finding, = _read(tmp_path, json.dumps(content if location else value)).findings
        assert finding.kind == kind and finding.file == str(tmp_path / 'a.json')
        assert finding.message.startswith(f'expected {expected} as {place}, but got ')


@pytest.mark.parametrize('name, index, key', [
    ('images', 0, 'id'),
    ('images', 0, 'file_name'),
    ('images', 0, 'height'),
    ('images', 0, 'width'),
    ('categories', 0, 'id'),
    ('categories', 0, 'name'),
    ('annotations', 1, 'image_id'),
    ('annotations', 1, 'segments_info'),
])
def test_read_annotations__missing_key(tmp_path, name, index, key):
    content = copy.deepcopy(CONTENT)
    del content[name][index][key]
    found = _read(tmp_path, content)
    finding, = found.findings
    assert finding.kind == 'key_missing' and finding.message.startswith(f'{name}[{index}].{key} (')
    assert finding.message.endswith(' is missing')
    assert found.content[name] == [entry for number, entry in enumerate(content[name]) if number != index]


def test_read_annotations__all_violations_and_the_valid_entries(tmp_path):
    content = copy.deepcopy(CONTENT)
    content['images'][0].update(height='6', width=None)
    for segment in content['annotations'][1]['segments_info']:
        segment['iscrowd'] = '0'
    found = _read(tmp_path, content)
    assert [finding.message.split(' (')[0] for finding in found.findings] == [
        'expected an integer from 1 to 1048576 as images[0].height',
        'expected an integer from 1 to 1048576 as images[0].width',
        'expected 0 or 1 as annotations[1].segments_info[0].iscrowd',
        'expected 0 or 1 as annotations[1].segments_info[1].iscrowd',
    ]
    assert found.content['images'] == content['images'][1:]
    assert found.content['annotations'] == content['annotations'][:1]
    assert found.skipped == dict(images={1}, annotations={1}, categories=set())
    assert check_entries(found, 'a.json') == []  # nothing follows from the skipped entries


@pytest.mark.parametrize('text', ['', '{"images": [', '[' * 100000, '{"a": "\\ud800"}', '{}x', '\x89PNG'])
def test_read_annotations__not_json(tmp_path, text):
    finding, = _read(tmp_path, text).findings
    assert finding.kind == 'json_invalid' and finding.message.startswith(
        'it cannot be decoded: Invalid JSON: ')


def test_read_annotations__huge_or_deep_value_is_shortened(tmp_path):
    for value in ('x' * 10000, json.loads('[' * 150 + ']' * 150), list(range(10000)), int('9' * 4000)):
        content = dict(CONTENT, images=[dict(CONTENT['images'][0], height=value)])
        finding, = _read(tmp_path, content).findings
        assert len(finding.message) < 250


def test_read_annotations__only_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='a JSON file at .*none.json, but there is no such file'):
        read_annotations(str(tmp_path / 'none.json'), AnnotationFile)
    with pytest.raises(ValueError, match=f'{tmp_path} is not a regular file'):
        read_annotations(str(tmp_path), AnnotationFile)


def _repeat(part, index, **values):
    return lambda content: content[part].append(dict(content[part][index], **values))


@pytest.mark.parametrize('change, kind, message', [
    (_repeat('categories', 0, name='dog'), 'category_repeated', '2 entries of `categories` have the id 0'),
    (_repeat('categories', 0, id=7), 'category_repeated', "2 entries of `categories` have the name 'cat'"),
    (_repeat('images', 0, file_name='c.jpg'), 'image_id_repeated', '2 entries of `images` have the id 1'),
    (lambda c: c['images'][1].update(file_name='a.jpg'), 'file_repeated',
     "2 entries of `images` have the file_name 'a.jpg'"),
    (_repeat('annotations', 0,
             file_name='c.png'), 'annotation_repeated', "2 entries of `annotations` have the image_id 'b'"),
    (lambda c: c['annotations'][0].update(file_name='a.png'), 'file_repeated',
     "2 entries of `annotations` have the file_name 'a.png'"),
    (lambda c: c['annotations'].pop(0), 'image_without_annotation', "image 'b' (ä.jpg)"),
    (lambda c: c['annotations'].append(dict(image_id=5, segments_info=[])), 'annotation_without_image',
     'annotation of image 5 (no file name)'),
    (lambda c: c['annotations'][1]['segments_info'][0].update(id=1), 'segment_id_repeated',
     '2 segments of image 1 (a.png) have the id 1'),
    (lambda c: c['annotations'][1]['segments_info'][0].update(category_id=5), 'category_unknown',
     'segment 16777215 of image 1 (a.png) has the unknown category 5'),
])
def test_check_entries__one_defect(tmp_path, change, kind, message):
    content = copy.deepcopy(CONTENT)
    change(content)
    assert _check(tmp_path, content) == [Finding(kind, 'a.json', message)]


def test_check_entries__images_without_annotations_are_allowed_in_evaluation(tmp_path):
    content = copy.deepcopy(CONTENT)
    del content['annotations'][0]
    assert _check(tmp_path, content, all_annotated=False) == []


def test_raise_errors__first_errors_only():
    raise_errors([Finding('file_unused', 'b.png', 'a note')], 'a.json')
    errors = [Finding('value_invalid', 'a.json', f'number {number}') for number in range(7)]
    with pytest.raises(ValueError) as raised:
        raise_errors([Finding('file_unused', 'b.png', 'a note'), *errors], 'a.json')
    lines = str(raised.value).splitlines()
    assert lines[0] == 'Expected the COCO panoptic format in a.json, but it has 7 errors:'
    assert lines[1:6] == [f'  value_invalid: number {number}' for number in range(5)]
    assert lines[6].startswith('  and 2 more; ') and len(lines) == 7
