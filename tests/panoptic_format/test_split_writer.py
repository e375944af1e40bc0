"""Writing a split: the files, interrupted and repeated runs, and existing files that are kept."""
import json
import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from remax_mm.panoptic_format import ConvertedImage, SegmentLabel, write_split
from remax_mm.panoptic_format.segments_info import describe_segments

CATEGORIES = [dict(id=4, name='hen', isthing=1, color=(1, 2, 3)), dict(id=9, name='lawn', isthing=0)]
IDS = np.array([[0, 7, 7, 0], [70000, 7, 7, 300], [70000, 70000, 0, 300]], np.int32)
LABELS = [SegmentLabel(300, 4, iscrowd=True), SegmentLabel(70000, 9), SegmentLabel(7, 4)]


def _convert(number: int, broken: int = -1) -> ConvertedImage:
    if number == broken:
        raise ValueError('Cannot convert a.png')
    labels = [SegmentLabel(7 + number, 4), *LABELS[:2]]
    ids = np.where(IDS == 7, 7 + number, IDS)
    notes = {'small': number} if number else None
    return ConvertedImage(f'img{number}', f'{number}.jpg', f'sub/{number}.png', ids, labels, notes)


def _process_ids(number: int) -> ConvertedImage:
    return _convert(number)._replace(notes={str(os.getpid()): 1})


def _files(folder: Path) -> dict:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_ino)
        for path in folder.rglob('*') if path.is_file()
    }


def test_write_split__files_and_report(tmp_path):
    written = write_split(tmp_path / 'new' / 'train.json', _convert, [0, 1, 2], CATEGORIES)
    content = json.loads((tmp_path / 'new' / 'train.json').read_text())
    assert content['categories'] == [dict(CATEGORIES[0], color=[1, 2, 3]), CATEGORIES[1]]
    assert content['images'] == [
        dict(id=f'img{i}', file_name=f'{i}.jpg', height=3, width=4) for i in range(3)
    ]
    assert [(a['image_id'], a['file_name']) for a in content['annotations']] == [(f'img{i}', f'sub/{i}.png')
                                                                                 for i in range(3)]
    assert content['annotations'][1]['segments_info'] == describe_segments(
        np.where(IDS == 7, 8, IDS),
        _convert(1).labels)
    png = cv2.imread(str(tmp_path / 'new' / 'train' / 'sub' / '2.png')).astype(int)
    assert np.array_equal(png[..., 2] + 256 * png[..., 1] + 65536 * png[..., 0], np.where(IDS == 7, 9, IDS))
    assert written[:6] == (tmp_path / 'new' / 'train.json', True, 3, 3, 3, 3)
    assert written.void_ratio == 3 / 12 and written.kept_pngs == 0 and written.notes == {'small': 3}
    for part in ('Wrote', '3 images; 0 of', '9 segments: 3 things, 3 stuff, 3 crowd', '25.00% of',
                 '3 pixels: small'):
        assert part in str(written)


def test_write_split__processes(tmp_path):
    one = write_split(tmp_path / 'one.json', _convert, range(8), CATEGORIES)
    two = write_split(tmp_path / 'two.json', _convert, range(8), CATEGORIES, processes=2)
    assert (tmp_path / 'one.json').read_bytes() == (tmp_path / 'two.json').read_bytes()
    assert one.notes == two.notes
    third = write_split(tmp_path / 'three.json', _process_ids, range(8), CATEGORIES, processes=2)
    assert str(os.getpid()) not in third.notes and sum(third.notes.values()) == 8


@pytest.mark.parametrize('processes', [1, 2])
def test_write_split__continues_an_interrupted_run(tmp_path, processes):
    with pytest.raises(ValueError, match='Cannot convert a.png'):
        write_split(tmp_path / 'a.json', partial(_convert, broken=2), [0, 1, 2], CATEGORIES, processes)
    assert not (tmp_path / 'a.json').exists()
    before = _files(tmp_path)
    assert {'a/sub/0.png', 'a/sub/1.png'} == set(before)
    written = write_split(tmp_path / 'a.json', _convert, [0, 1, 2], CATEGORIES, processes)
    after = _files(tmp_path)
    assert written.kept_pngs == 2 and written.is_new and len(after) == 4
    assert all(after[name] == content for name, content in before.items())  # not written again


def test_write_split__complete_split_is_not_written_again(tmp_path):
    write_split(tmp_path / 'a.json', _convert, [0, 1], CATEGORIES)
    before = _files(tmp_path)
    written = write_split(tmp_path / 'a.json', _convert, [0, 1], CATEGORIES)
    assert not written.is_new and written.kept_pngs == 2 and 'nothing to do' in str(written)
    assert _files(tmp_path) == before


def test_write_split__keeps_another_json(tmp_path):
    write_split(tmp_path / 'a.json', _convert, [0, 1], CATEGORIES)
    for content in ('{"images": []}', 'no JSON'):
        (tmp_path / 'a.json').write_text(content)
        with pytest.raises(FileExistsError, match='a.json, but there is another file; --overwrite'):
            write_split(tmp_path / 'a.json', _convert, [0, 1], CATEGORIES)
        assert (tmp_path / 'a.json').read_text() == content
    assert write_split(tmp_path / 'a.json', _convert, [0, 1], CATEGORIES, overwrite=True).kept_pngs == 2
    assert len(json.loads((tmp_path / 'a.json').read_text())['images']) == 2


@pytest.mark.parametrize('other', [b'', b'no image', 'of another image'])
def test_write_split__keeps_another_png(tmp_path, other):
    write_split(tmp_path / 'a.json', _convert, [0, 1], CATEGORIES)
    png = tmp_path / 'a' / 'sub' / '1.png'
    right = png.read_bytes()
    other = (tmp_path / 'a' / 'sub' / '0.png').read_bytes() if other == 'of another image' else other
    png.write_bytes(other)
    with pytest.raises(FileExistsError, match=r'1\.png, but there is another file; --overwrite'):
        write_split(tmp_path / 'a.json', _convert, [0, 1], CATEGORIES)
    assert png.read_bytes() == other
    written = write_split(tmp_path / 'a.json', _convert, [0, 1], CATEGORIES, overwrite=True)
    assert png.read_bytes() == right and written.kept_pngs == 1


def test_write_split__path_without_json_suffix(tmp_path):
    with pytest.raises(ValueError, match='ends in .json to write the annotations, but got .*panoptic'):
        write_split(tmp_path / 'panoptic', _convert, [0], CATEGORIES)
    assert not list(tmp_path.iterdir())
