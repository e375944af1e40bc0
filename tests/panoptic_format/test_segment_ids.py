import mmcv
import numpy as np
import pytest

from remax_mm.panoptic_format import number_segments, read_segment_ids, write_segment_ids


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


def test_read_segment_ids__bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='missing.png'):
        read_segment_ids(str(tmp_path / 'missing.png'))
    (tmp_path / 'broken.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match='broken.png'):
        read_segment_ids(str(tmp_path / 'broken.png'))


def test_number_segments__void_is_0_and_stuff_label_0_is_not():
    ids, segments = number_segments(np.array([[0, 0, 2], [1001, 2, 0]]), num_classes=2)
    assert ids.tolist() == [[1, 1, 0], [2, 0, 1]]
    assert segments == [
        dict(id=1, value=0, label=0, area=3, bbox=[0, 0, 3, 2]),
        dict(id=2, value=1001, label=1, area=1, bbox=[0, 1, 1, 1]),
    ]


def test_number_segments__all_void():
    ids, segments = number_segments(np.full((2, 3), 5), num_classes=5)
    assert not ids.any() and segments == []


def test_number_segments__unknown_label():
    with pytest.raises(ValueError, match='1007'):
        number_segments(np.array([[1007]]), num_classes=5)
