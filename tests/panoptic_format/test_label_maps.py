"""Label maps are read as stored, from every kind of PNG; errors name the file."""
import cv2
import numpy as np
import pytest
from PIL import Image

from remax_mm.panoptic_format import BrokenFileError, read_channels, read_label_map

VALUES = np.array([[0, 1, 255], [7, 7, 2]])


def test_read_label_map__every_kind_of_png(tmp_path):
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), VALUES.astype(np.uint8))
    assert np.array_equal(read_label_map(path), VALUES)
    cv2.imwrite(str(path), (VALUES * 257).astype(np.uint16))
    assert np.array_equal(read_label_map(path), VALUES * 257)
    # A palette, as of PASCAL VOC: the colors are not the values.
    image = Image.fromarray(VALUES.astype(np.uint8))
    image.putpalette([channel for value in range(256) for channel in (255 - value, 3, 9)])
    image.save(path)
    assert Image.open(path).mode == 'P' and np.array_equal(read_label_map(path), VALUES)
    Image.fromarray(VALUES > 5).save(path)
    assert Image.open(path).mode == '1' and np.array_equal(read_label_map(path), VALUES > 5)
    assert read_label_map(path).dtype == np.uint8


def test_read_channels__order_is_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((2, 3, 3), (30, 20, 10), np.uint8))  # B, G, R
    assert read_channels(tmp_path / 'a.png').tolist() == [[[10, 20, 30]] * 3] * 2
    with pytest.raises(ValueError, match='one number per pixel in .*a.png, but it has 3 channels'):
        read_label_map(tmp_path / 'a.png')


def test_read_label_map__invalid_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='an annotation at .*missing.png, but there is no such file'):
        read_label_map(tmp_path / 'missing.png')
    (tmp_path / 'broken.png').write_bytes(b'\x89PNG no more')
    with pytest.raises(BrokenFileError, match='broken.png cannot be decoded'):
        read_label_map(tmp_path / 'broken.png')


def test_read_label_map__truncated(tmp_path):
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / 'a.png'), rng.integers(0, 255, (64, 64), np.uint8))
    content = (tmp_path / 'a.png').read_bytes()
    (tmp_path / 'a.png').write_bytes(content[:len(content) // 2])
    with pytest.raises(BrokenFileError, match='a.png cannot be decoded'):
        read_label_map(tmp_path / 'a.png')
