"""Ids as colors of a PNG: the formula of the COCO format, and files."""
import mmcv
import numpy as np
import pytest

from remax_mm.panoptic_format import read_segment_ids, write_segment_ids
from remax_mm.panoptic_format.segment_ids import decode_segment_ids, encode_segment_ids


def test_decode_segment_ids__formula():
    png = np.random.default_rng(0).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    blue, green, red = (png[..., i].astype(int) for i in range(3))
    ids = decode_segment_ids(png)
    assert np.array_equal(ids, red + 256 * green + 256**2 * blue)
    assert ids.dtype == np.int32 and ids.shape == (7, 9)


def test_encode_segment_ids__order_is_blue_green_red():
    ids = np.array([[5 + 256 * 4 + 65536 * 3, 0]])
    assert encode_segment_ids(ids, 'a.png').tolist() == [[[3, 4, 5], [0, 0, 0]]]


@pytest.mark.parametrize('wrong', [-1, 256**3])
def test_encode_segment_ids__out_of_range(wrong):
    with pytest.raises(ValueError, match=rf'\[0, 2\^24\), but got {wrong} to {wrong} for a.png'):
        encode_segment_ids(np.array([[wrong]]), 'a.png')


def test_read_segment_ids__color_is_red_plus_256_green_plus_65536_blue(tmp_path):
    rgb = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [5, 4, 3]]], dtype=np.uint8)
    mmcv.imwrite(rgb[..., ::-1], str(tmp_path / 'a.png'))
    assert read_segment_ids(str(tmp_path / 'a.png')).tolist() == [[1, 256, 65536, 5 + 4 * 256 + 3 * 65536]]


def test_write_segment_ids__round_trip(tmp_path):
    ids = np.random.default_rng(0).integers(0, 256**3, (7, 9))
    write_segment_ids(tmp_path / 'folder' / 'a.png', ids)
    np.testing.assert_array_equal(read_segment_ids(str(tmp_path / 'folder' / 'a.png')), ids)


@pytest.mark.parametrize('wrong', [-1, 256**3])
def test_write_segment_ids__out_of_range(tmp_path, wrong):
    with pytest.raises(ValueError, match='a.png'):
        write_segment_ids(tmp_path / 'a.png', np.array([[wrong]]))


def test_read_segment_ids__invalid_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='missing.png'):
        read_segment_ids(str(tmp_path / 'missing.png'))
    (tmp_path / 'broken.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match='broken.png'):
        read_segment_ids(str(tmp_path / 'broken.png'))
