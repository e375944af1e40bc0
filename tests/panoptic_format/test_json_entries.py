"""Decoding of a JSON object with converted entries of its lists."""
import gc
import json

import pytest

from remax_mm.panoptic_format.garbage_collection import without_garbage_collection
from remax_mm.panoptic_format.json_entries import decode_entries

VALUES = [
    dict(a=[1, 2], b=[], c={'a': [3]}, d=None),
    dict(a=[[], {}, '],"\\\\', -1.5e3, True], b='text'),
    dict(a={}),
    {},
]


def _mark(entry):
    return ('converted', entry)


@pytest.mark.parametrize('value', VALUES)
@pytest.mark.parametrize('layout', [dict(), dict(indent=2), dict(separators=(',', ':'))])
def test_decode_entries__as_json_loads(value, layout):
    text = f' \t{json.dumps(value, **layout)}\r\n'
    expected = json.loads(text)
    assert decode_entries(text, {}) == expected
    for name in ('a', 'b'):
        if isinstance(expected.get(name), list):
            expected[name] = [_mark(entry) for entry in expected[name]]
    assert decode_entries(text, dict(a=_mark, b=_mark, e=_mark)) == expected


def test_decode_entries__the_last_of_two_equal_keys():
    assert decode_entries('{"a": [1], "a": [2]}', dict(a=_mark)) == dict(a=[_mark(2)])


@pytest.mark.parametrize('end', range(len(json.dumps(VALUES[0]))))
def test_decode_entries__truncated(end):
    with pytest.raises(ValueError):
        decode_entries(json.dumps(VALUES[0])[:end], dict(a=_mark))


@pytest.mark.parametrize('text', [
    '', '[]', '1', 'null', '{"a": [1,]}', '{"a": [1 2]}', '{"a": [,]}', '{"a": 1,}', '{"a" 1}', '{"a": }',
    '{a: 1}', '{"a": [1}', '{"a": 1}]', '{"a": 1} 2', '{"a": [1], b}', '{1: 2}'
])
def test_decode_entries__no_json_object(text):
    with pytest.raises(ValueError):
        decode_entries(text, dict(a=_mark))


@pytest.mark.parametrize('enabled', [True, False])
def test_without_garbage_collection__restores_the_state(enabled):
    gc.enable() if enabled else gc.disable()
    try:
        with pytest.raises(KeyError), without_garbage_collection():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
