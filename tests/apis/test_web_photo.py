"""Photos of the web page: limits, selection of segments, table and files."""
import json
import threading
import time
import zlib

import cv2
import numpy as np
import pytest

from remax_mm.apis import PanopticResult, find_training
from remax_mm.apis.web_photo import (Limits, Photo, PhotoSegmenter, choose_segments, count_classes,
                                     list_segments, read_photo, write_downloads)
from remax_mm.panoptic_format import read_segment_ids
from tests.color_inferencer import color_inferencer
from tests.color_model import CAT, CAT_2, GRASS, SKY, paint

S = slice
PAINTING = paint((40, 60), (SKY, S(0, 20), S(None)), (GRASS, S(20, None), S(None)),
                 (CAT, S(10, 30), S(5, 15)), (CAT_2, S(10, 30), S(40, 44)))


@pytest.fixture(scope='module')
def result():
    """Sky 1, grass 2, a cat of 200 and one of 80 pixels; the scores are made up."""
    found, = color_inferencer()(PAINTING)['predictions']
    segments = [
        dict(segment, score={
            'sky': 0.9,
            'grass': None
        }.get(segment['class_name'], segment['area'] / 400)) for segment in found.segments_info
    ]
    return found._replace(segments_info=segments)


def _areas(result):
    return sorted(segment['area'] for segment in result.segments_info)


def test_read_photo__limits(tmp_path):
    path = tmp_path / 'photo.png'
    cv2.imwrite(str(path), PAINTING)
    np.testing.assert_array_equal(read_photo(str(path), Limits()), PAINTING)
    size = path.stat().st_size
    assert read_photo(str(path), Limits(num_bytes=size, num_pixels=2400)).shape == (40, 60, 3)
    with pytest.raises(ValueError, match=f'at most {size - 1} bytes, but .*photo.png has {size}'):
        read_photo(str(path), Limits(num_bytes=size - 1))
    with pytest.raises(ValueError, match='at most 2399 pixels, but photo.png has 60 x 40'):
        read_photo(str(path), Limits(num_pixels=2399))
    assert read_photo(str(path), Limits(side=30)).shape == (20, 30, 3)


def test_read_photo__a_bomb_is_not_decoded(tmp_path, monkeypatch):
    # The header of 81 million pixels, fewer than PIL refuses, is enough to refuse it.
    path = tmp_path / 'bomb.png'
    cv2.imwrite(str(path), np.zeros((8, 8), np.uint8))
    content = bytearray(path.read_bytes())
    content[16:24] = (9000).to_bytes(4, 'big') * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, 'big')
    path.write_bytes(content)
    monkeypatch.setattr('remax_mm.apis.web_photo.decode_image', None)
    with pytest.raises(ValueError, match="50000000 pixels, but bomb.png has 9000 x 9000"):
        read_photo(str(path), Limits())


@pytest.mark.parametrize('content', [b'', b'text', b'<svg xmlns="http://www.w3.org/2000/svg"/>', b'GIF89a'])
def test_read_photo__no_image(content, tmp_path):
    (tmp_path / 'photo.png').write_bytes(content)
    with pytest.raises(ValueError, match='^Expected an image, but photo.png cannot be decoded'):
        read_photo(str(tmp_path / 'photo.png'), Limits())


def test_photo_segmenter__time_limit_and_order(tmp_path):
    cv2.imwrite(str(tmp_path / 'photo.png'), PAINTING)
    path, inferencer = str(tmp_path / 'photo.png'), color_inferencer()
    image, found = PhotoSegmenter(inferencer, Limits())(path)
    np.testing.assert_array_equal(image, PAINTING[..., ::-1])
    assert _areas(found) == [80, 200, *sorted(_areas(found)[2:])]

    stuck, runs, test_step = threading.Event(), [], inferencer.model.test_step
    inferencer.model.test_step = lambda data: runs.append(stuck.wait(10)) or test_step(data)
    segment = PhotoSegmenter(inferencer, Limits(seconds=0.1))
    start = time.monotonic()
    for _ in range(2):  # the first photo is stuck, the second one waits for it and is given up
        with pytest.raises(TimeoutError, match='within 0.1 s'):
            segment(path)
    assert time.monotonic() - start < 5
    stuck.set()
    for _ in range(100):  # the worker is free again
        try:
            segment(path)
            break
        except TimeoutError:
            time.sleep(0.05)
    assert len(runs) == 2  # not the one that was given up


def test_choose_segments__by_class_score_and_area(result):
    all_classes = {'cat', 'sky', 'grass'}
    sky, grass = 20 * 60 - 10 * 10 - 10 * 4, 20 * 60 - 10 * 10 - 10 * 4
    assert _areas(choose_segments(result, all_classes, 0, 0)) == [80, 200, sky, grass]
    assert _areas(choose_segments(result, {'cat'}, 0, 0)) == [80, 200]
    assert _areas(choose_segments(result, all_classes, 0.5, 0)) == [200, sky, grass]
    assert _areas(choose_segments(result, all_classes, 0.51, 0)) == [sky, grass]
    assert _areas(choose_segments(result, all_classes, 0.91, 0)) == [grass]  # which has no score
    assert _areas(choose_segments(result, all_classes, 0, 100 * 200 / 2400)) == [200, sky, grass]
    assert _areas(choose_segments(result, (), 0, 0)) == []


def test_count_classes_and_list_segments(result):
    counts = count_classes(result)
    assert sorted(counts) == [('cat (2)', 'cat'), ('grass (1)', 'grass'), ('sky (1)', 'sky')]
    assert counts[-1] == ('cat (2)', 'cat')  # the smallest area
    rows = list_segments(choose_segments(result, {'cat', 'grass'}, 0, 0))
    assert [row[1:] for row in rows] == [
        ['grass', 'stuff', '', '44.2', '0, 20, 60, 20'],
        ['cat', 'thing', '0.50', '8.3', '5, 10, 10, 20'],
        ['cat', 'thing', '0.20', '3.3', '40, 10, 4, 20'],
    ]
    assert len({row[0] for row in rows}) == 3
    empty = PanopticResult(None, np.zeros((2, 2), np.int32), [])
    assert count_classes(empty) == list_segments(empty) == []


def test_write_downloads__only_the_chosen_segments(tmp_path, result):
    photo = Photo('my photo', np.ascontiguousarray(PAINTING[..., ::-1]), result, str(tmp_path))
    chosen = choose_segments(result, {'cat'}, 0, 0)
    overlay, ids, described = write_downloads(photo, chosen, photo.image)
    np.testing.assert_array_equal(cv2.imread(str(overlay)), PAINTING)
    np.testing.assert_array_equal(read_segment_ids(ids), chosen.segment_map)
    content = json.loads(described.read_text())
    assert content['panoptic_png'] == ids.name == 'my photo_panoptic.png'
    assert [segment['class_name'] for segment in content['segments_info']] == ['cat', 'cat']


def test_find_training__last_checkpoint_of_a_moved_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=f'finished training in {tmp_path}, .*make demo'):
        find_training(tmp_path)
    (tmp_path / 'tiny.py').touch()
    (tmp_path / 'last_checkpoint').write_text('work_dirs/elsewhere/iter_7.pth\n')
    assert find_training(tmp_path) == (tmp_path / 'tiny.py', tmp_path / 'iter_7.pth')
    (tmp_path / 'other.py').touch()
    with pytest.raises(ValueError, match=r"one config in .* \['other.py', 'tiny.py'\]"):
        find_training(tmp_path)
