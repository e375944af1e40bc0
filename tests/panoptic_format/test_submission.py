import zipfile
from pathlib import Path

from remax_mm.panoptic_format.submission import submission_paths, zip_submission


def test_submission_paths__suffix_after_a_dot():
    paths = submission_paths('out/val.v2')
    assert paths == (Path('out/val.v2.json'), Path('out/val.v2'), Path('out/val.v2.zip'))


def test_zip_submission__json_and_folder_at_the_top(tmp_path):
    (tmp_path / 'val').mkdir()
    for name in ('val.json', 'val/b.png', 'val/a.png', 'val/notes.txt', 'other.json'):
        (tmp_path / name).write_text(name)
    path = zip_submission(str(tmp_path / 'val'))
    assert path == tmp_path / 'val.zip'
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ['val.json', 'val/a.png', 'val/b.png']
        assert archive.read('val/b.png') == b'val/b.png'
