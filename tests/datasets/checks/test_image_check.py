"""One defect in the files of an image: the check finds only that, and errors stop training."""
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from remax_mm.datasets.checks import check_image
from remax_mm.panoptic_format import KINDS, write_segment_ids
from tests.datasets.checks.conftest import IDS, SEGMENTS


def _change_segment(index, **values):

    def change(checked_set):
        checked_set.content['annotations'][1]['segments_info'][index].update(values)

    return change


def _add_segment(**values):

    def change(checked_set):
        checked_set.content['annotations'][1]['segments_info'].append(
            dict(category_id=3, iscrowd=0, **values))

    return change


def _change_pixel(row, column, value):

    def change(checked_set):
        ids = IDS.copy()
        ids[row, column] = value
        write_segment_ids(checked_set.folder / 'pngs' / 'b.png', ids)

    return change


def _remove(name):

    def change(checked_set):
        (checked_set.folder / name).unlink()

    return change


def _truncate(name):

    def change(checked_set):
        path = checked_set.folder / name
        path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])

    return change


def _transpose_image(checked_set):
    cv2.imwrite(str(checked_set.folder / 'images' / 'b.jpg'), np.zeros((8, 6, 3), np.uint8))


def _enlarge_image(checked_set):
    checked_set.content['images'][1]['height'] = 7
    cv2.imwrite(str(checked_set.folder / 'images' / 'b.jpg'), np.zeros((7, 8, 3), np.uint8))


def _keep_only_crowd(checked_set):
    checked_set.content['annotations'][1]['segments_info'] = [SEGMENTS[4]]
    write_segment_ids(checked_set.folder / 'pngs' / 'b.png', np.where(IDS == 60, 60, 0))


DEFECTS = [
    (_change_segment(0, category_id=99), 'category_unknown', 'panoptic.json'),
    (_change_pixel(0, 0, 77), 'segment_unlisted', 'b.png'),
    (_change_segment(0, area=5), 'area_wrong', 'b.png'),
    (_change_segment(0, bbox=[0, 1, 2, 2]), 'bbox_wrong', 'b.png'),
    (_add_segment(id=11, area=4), 'segment_id_repeated', 'panoptic.json'),
    (_add_segment(id=13, area=3), 'segment_empty', 'b.png'),
    (_remove('images/b.jpg'), 'image_missing', 'b.jpg'),
    (_remove('pngs/b.png'), 'png_missing', 'b.png'),
    (_truncate('images/b.jpg'), 'image_broken', 'b.jpg'),
    (_truncate('pngs/b.png'), 'png_broken', 'b.png'),
    (_transpose_image, 'size_differs', 'b.jpg'),
    (_enlarge_image, 'size_differs', 'b.png'),
    (_change_segment(3, category_id=7), 'stuff_repeated', 'b.png'),
    (_change_segment(4, category_id=9), 'stuff_is_crowd', 'b.png'),
    (_keep_only_crowd, 'all_void', 'b.png'),
]
IDS_OF_DEFECTS = [f'{kind}-{file}' for _, kind, file in DEFECTS]


@pytest.mark.parametrize('add_defect, kind, file', DEFECTS, ids=IDS_OF_DEFECTS)
def test_check_image__finds_only_the_defect(checked_set, add_defect, kind, file):
    checked_set.assert_finds(add_defect, kind, file)


INVALID_IDS = [(_add_segment(id=segment_id), 'segment_id_invalid', 'panoptic.json')
               for segment_id in (0, 256**3)]


@pytest.mark.parametrize(
    'add_defect, kind, file', [*DEFECTS, *INVALID_IDS], ids=[*IDS_OF_DEFECTS, 'id-0', 'id-256^3'])
def test_check_image__errors_stop_training(checked_set, add_defect, kind, file):
    add_defect(checked_set)
    assert (kind, file) in checked_set.check()
    if KINDS[kind].is_error:
        with pytest.raises((ValueError, FileNotFoundError), match=rf'\b{Path(file).stem}\.(png|jpg|json)'):
            checked_set.load()
    else:
        assert len(checked_set.load()) == 2


def test_check_image__segment_with_the_id_of_another(checked_set):
    _change_segment(1, id=11)(checked_set)
    found = checked_set.check()
    assert ('segment_id_repeated', 'panoptic.json') in found
    assert ('segment_unlisted', 'b.png') in found  # the pixels of the replaced id


def test_check_image__empty_segment_has_no_other_finding(checked_set):
    _add_segment(id=13, area=3)(checked_set)
    assert checked_set.check() == [('segment_empty', 'b.png')]


def test_check_image__photo_rotated_by_its_exif_data(checked_set):
    # Training reads the photo as 6 x 8 pixels; it is stored as 8 x 6.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (6, 8)).save(checked_set.folder / 'images' / 'b.jpg', exif=exif)
    assert checked_set.check() == []


def test_check_image__counts_by_hand(checked_set):
    report = checked_set.check_json()
    image = check_image(report.tasks[0], {category.id: category for category in report.categories})
    assert (image.pixels, image.void, image.crowd) == (48, 8, 2)
    assert image.class_pixels == {3: 8, 7: 18, 9: 12}
    assert image.class_segments == {3: 2, 7: 1, 9: 1}
