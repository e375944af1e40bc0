"""Reading JSON files with clear errors, and writing files completely or not at all."""
import pytest

from remax_mm.panoptic_format import check_unique, list_some, read_panoptic_json, require_keys, write_json
from remax_mm.panoptic_format.json_files import PARTIAL_SUFFIX, annotations_by_image, write_atomically


def test_read_panoptic_json__returns_what_was_written(tmp_path):
    content = dict(images=[dict(id=1, file_name='ä.jpg')], annotations=[])
    write_json(tmp_path / 'a.json', content)
    assert read_panoptic_json(str(tmp_path / 'a.json'), ('images', 'annotations')) == content


@pytest.mark.parametrize('content, message', [
    (b'{"images": [', 'Expected JSON in .*a.json, but it cannot be decoded'),
    (b'\x89PNG\xff', 'Expected JSON in .*a.json, but it cannot be decoded'),
    (b'[1, 2]', r"`images` .*a.json, but \['images'\] are missing"),
    (b'{"info": 0}', r"`images` .*a.json, but \['images'\] are missing; its keys are \['info'\]"),
])
def test_read_panoptic_json__invalid_content(tmp_path, content, message):
    (tmp_path / 'a.json').write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_panoptic_json(str(tmp_path / 'a.json'), ('images', ))


def test_require_keys__names_the_key_and_the_file():
    with pytest.raises(ValueError, match="the key 'height' .*x.json"), require_keys('x.json'):
        dict(width=3)['height']


def test_annotations_by_image__by_hand():
    one, two = dict(image_id='a', x=1), dict(image_id=7, x=2)
    assert annotations_by_image([one, two], 'x.json') == {'a': one, 7: two}
    with pytest.raises(ValueError, match="each image once in the `annotations` of x.json, but 'a' appear"):
        annotations_by_image([one, two, one], 'x.json')
    with pytest.raises(ValueError, match="the key 'image_id' .*x.json"):
        annotations_by_image([one, dict(x=3)], 'x.json')


def test_check_unique__names_repeated_values():
    check_unique('name', 'categories', ['a', 'b'], 'x.json')
    with pytest.raises(
            ValueError, match="each name once in the categories of x.json, but 3, 'a' appear several times"):
        check_unique('name', 'categories', ['a', 3, 'b', 3, 'a'], 'x.json')


def test_list_some__five_and_the_number_of_others():
    assert list_some([]) == 'none'
    assert list_some('gfedcba') == "'a', 'b', 'c', 'd', 'e' and 2 more"


def test_write_atomically__keeps_the_old_content_until_the_new_is_complete(tmp_path, monkeypatch):
    path = tmp_path / 'folder' / 'a'
    write_atomically(path, b'old')

    def fail(*args):
        raise OSError('disk full')

    with monkeypatch.context() as patch:
        patch.setattr('os.replace', fail)
        with pytest.raises(OSError, match='disk full'):
            write_atomically(path, b'new')
    assert path.read_bytes() == b'old'
    write_atomically(path, b'new')
    assert path.read_bytes() == b'new'
    assert not list(tmp_path.rglob(f'*{PARTIAL_SUFFIX}'))
