import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile

from remax_mm.datasets.transforms.load_image_strict import LoadImageStrict
from remax_mm.panoptic_format import BrokenFileError, decode_image, read_image


def _picture() -> np.ndarray:
    return cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8), (90, 60))


def _write(folder, name: str) -> str:
    path = str(folder / name)
    cv2.imwrite(path, _picture())
    return path


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
def test_read_image__as_opencv_does(tmp_path, name):
    path = _write(tmp_path, name)
    assert np.array_equal(read_image(path), cv2.imread(path))


def test_read_image__a_png_keeps_every_value(tmp_path):
    assert np.array_equal(read_image(_write(tmp_path, 'a.png')), _picture())


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
@pytest.mark.parametrize('share', [0, .3, .7, .99])
def test_read_image__cut(tmp_path, name, share):
    path = _write(tmp_path, name)
    whole = open(path, 'rb').read()
    open(path, 'wb').write(whole[:int(len(whole) * share)])
    with pytest.raises(BrokenFileError, match=path):
        read_image(path)


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_decode_image__something_else(backend):
    with pytest.raises(BrokenFileError, match='notes.png'):
        decode_image(b'some text', 'notes.png', backend=backend)


def test_decode_image__a_jpeg_with_bytes_after_its_end(tmp_path):
    path = _write(tmp_path, 'a.jpg')
    whole = open(path, 'rb').read()
    assert np.array_equal(decode_image(whole + b'camera notes', path), cv2.imread(path))


def test_read_image__missing(tmp_path):
    with pytest.raises(FileNotFoundError, match='none.jpg, but there is no such file'):
        read_image(str(tmp_path / 'none.jpg'))


@pytest.mark.parametrize('to_float32', [False, True])
def test_load_intact_image__as_mmcv_does(tmp_path, to_float32):
    path = _write(tmp_path, 'a.jpg')
    ours = LoadImageStrict(to_float32=to_float32)(dict(img_path=path))
    theirs = LoadImageFromFile(to_float32=to_float32)(dict(img_path=path))
    assert ours.keys() == theirs.keys()
    assert np.array_equal(ours['img'], theirs['img']) and ours['img'].dtype == theirs['img'].dtype
    assert ours['img_shape'] == theirs['img_shape'] == (60, 90) == ours['ori_shape']
