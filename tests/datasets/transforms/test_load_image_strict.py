"""LoadImageStrict against mmcv's loader."""
import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile

from remax_mm.datasets import LoadImageStrict
from remax_mm.panoptic_format import BrokenFileError


def test_load_image_strict__equals_mmcv(tmp_path):
    path = str(tmp_path / 'a.jpg')
    cv2.imwrite(path, np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
    ours, theirs = LoadImageStrict()(dict(img_path=path)), LoadImageFromFile()(dict(img_path=path))
    assert ours.keys() == theirs.keys()
    assert np.array_equal(ours['img'], theirs['img']) and ours['img'].dtype == theirs['img'].dtype
    assert ours['img_shape'] == theirs['img_shape'] == (60, 90) == ours['ori_shape']


def test_load_image_strict__broken_file(tmp_path):
    path = tmp_path / 'a.jpg'
    path.write_bytes(b'not an image')
    with pytest.raises(BrokenFileError, match='a.jpg cannot be decoded'):
        LoadImageStrict()(dict(img_path=str(path)))
