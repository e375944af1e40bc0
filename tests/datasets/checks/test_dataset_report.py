"""The report on a dataset, by hand: numbers, text and JSON."""
import json

import pytest

from remax_mm.datasets.checks import Category, ImageReport, format_report, report_as_dict, summarize_dataset
from remax_mm.panoptic_format import Finding

CATEGORIES = [Category(9, 'sky', False), Category(3, 'cat', True), Category(7, 'grass', False)]
NOTE = Finding('file_unused', 'pngs/c.png', 'no annotation uses it')
ERRORS = [Finding('area_wrong', f'pngs/{name}.png', 'wrong') for name in 'ab']


@pytest.fixture
def report():
    images = [
        ImageReport([ERRORS[0]], 40, 8, 2, {
            3: 10,
            7: 20
        }, {
            3: 2,
            7: 1
        }),
        ImageReport([ERRORS[1]], 60, 12, 0, {
            3: 18,
            9: 30
        }, {
            3: 1,
            9: 1
        }),
        ImageReport([Finding('png_missing', 'pngs/d.png', 'no such file')])
    ]
    return summarize_dataset(CATEGORIES, images, [NOTE])


def test_summarize_dataset__by_hand(report):
    assert (report.images, report.void_ratio, report.crowd_ratio) == (2, 0.2, 0.02)
    assert [tuple(summary) for summary in report.classes] == [
        ('cat', True, 2, 3, 28),
        ('grass', False, 1, 1, 20),
        ('sky', False, 1, 1, 30),
    ]
    assert report.has_errors
    assert list(report.counts.items()) == [('png_missing', 1), ('area_wrong', 2), ('file_unused', 1)]


def test_summarize_dataset__notes_are_not_errors():
    report = summarize_dataset(CATEGORIES, [], [NOTE])
    assert not report.has_errors and report.images == 0 and report.void_ratio == 0
    assert format_report(report).endswith('\nNo errors found.')


def test_format_report__numbers_and_limited_findings(report):
    text = format_report(report, most=1)
    assert text.startswith('2 images, 1 things and 2 stuff classes; void 20.0%, crowd 2.0% of the pixels\n')
    assert '| cat   | thing | 2      | 3        | 35.90 % |' in text  # 28 of 78 pixels
    assert 'ERROR area_wrong: 2, an `area` that is not the number of pixels in the PNG' in text
    assert '    pngs/a.png: wrong\n    and 1 more\n' in text and 'pngs/b.png' not in text
    assert 'note file_unused: 1, ' in text and text.endswith('\n3 errors')


def test_report_as_dict__is_json(report):
    content = json.loads(json.dumps(report_as_dict(report)))
    assert content['images'] == 2 and content['void_ratio'] == 0.2 and content['crowd_ratio'] == 0.02
    assert content['classes'][0] == dict(name='cat', is_thing=True, images=2, segments=3, pixels=28)
    assert content['findings'][0] == dict(
        kind='file_unused', file='pngs/c.png', message='no annotation uses it', is_error=False)
    assert [finding['is_error'] for finding in content['findings']] == [False, True, True, True]
