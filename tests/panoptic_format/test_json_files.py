"""Lists in messages, and writing of files completely or not at all."""
import pytest

from remax_mm.panoptic_format import check_unique, list_some
from remax_mm.panoptic_format.json_files import PARTIAL_SUFFIX, write_atomically


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
