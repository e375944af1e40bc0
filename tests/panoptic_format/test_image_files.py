"""Images are read as OpenCV reads them; incomplete, damaged and missing files raise clear errors."""
import cv2
import numpy as np
import pytest
from PIL import Image

from remax_mm.panoptic_format import BrokenFileError, read_image, read_photo_size
from remax_mm.panoptic_format.image_files import decode_image


def _picture() -> np.ndarray:
    return cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8), (90, 60))


def _write(folder, name: str) -> str:
    path = str(folder / name)
    cv2.imwrite(path, _picture())
    return path


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
def test_read_image__equals_opencv(tmp_path, name):
    path = _write(tmp_path, name)
    assert np.array_equal(read_image(path), cv2.imread(path))


def test_read_image__png_is_lossless(tmp_path):
    assert np.array_equal(read_image(_write(tmp_path, 'a.png')), _picture())


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
@pytest.mark.parametrize('fraction', [0, .3, .7, .99])
def test_read_image__truncated(tmp_path, name, fraction):
    path = _write(tmp_path, name)
    whole = open(path, 'rb').read()
    open(path, 'wb').write(whole[:int(len(whole) * fraction)])
    with pytest.raises(BrokenFileError, match=path):
        read_image(path)


def test_decode_image__not_an_image():
    with pytest.raises(BrokenFileError, match='notes.png cannot be decoded'):
        decode_image(b'some text', 'notes.png')


def test_decode_image__jpeg_with_bytes_after_its_end(tmp_path):
    path = _write(tmp_path, 'a.jpg')
    whole = open(path, 'rb').read()
    assert np.array_equal(decode_image(whole + b'camera notes', path), cv2.imread(path))


def test_read_image__missing(tmp_path):
    with pytest.raises(FileNotFoundError, match='none.jpg, but there is no such file'):
        read_image(str(tmp_path / 'none.jpg'))


@pytest.mark.parametrize('orientation', range(1, 9))
def test_read_photo_size__equals_opencv(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / 'a.jpg', exif=exif)
    assert read_photo_size(tmp_path / 'a.jpg') == cv2.imread(str(tmp_path / 'a.jpg')).shape[:2]


def test_read_photo_size__invalid_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='a photo at .*missing.png, but there is no such file'):
        read_photo_size(tmp_path / 'missing.png')
    (tmp_path / 'broken.png').write_bytes(b'\x89PNG no more')
    with pytest.raises(BrokenFileError, match='broken.png cannot be decoded'):
        read_photo_size(tmp_path / 'broken.png')
