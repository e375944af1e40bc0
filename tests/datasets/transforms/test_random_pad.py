"""Padding, and all spatial transforms together, on photo and index map."""
import numpy as np
import pytest
from mmdet.registry import TRANSFORMS
from mmengine.dataset import Compose

from remax_mm.datasets.transforms.random_pad import RandomPad


@pytest.fixture(autouse=True)
def _numpy_seed():
    np.random.seed(0)


def _aligned(height, width, dtype=np.uint8):
    """Photo and index map with the same numbers, which are neither 0 nor 128, the values of padding."""
    index = (np.arange(height * width).reshape(height, width) % 120 + 1).astype(dtype)
    return dict(
        img=np.repeat(index[..., None], 3, -1).astype(np.uint8), gt_seg_map=index, img_shape=(height, width))


def test_random_pad__all_offsets_occur_and_keep_the_image():
    seen = set()
    for _ in range(200):
        results = RandomPad(size=(9, 7))(_aligned(5, 8))
        assert results['img'].shape == (7, 9, 3) and results['img_shape'] == (7, 9)
        assert results['gt_seg_map'].shape == (7, 9) and results['gt_seg_map'].dtype == np.uint8
        rows, columns = np.nonzero(results['gt_seg_map'])
        top, left = rows.min(), columns.min()
        assert np.array_equal(results['gt_seg_map'][top:top + 5, left:left + 8], _aligned(5, 8)['gt_seg_map'])
        inside = results['gt_seg_map'] > 0
        assert np.array_equal(results['img'][inside][:, 1], results['gt_seg_map'][inside])
        assert (results['img'][~inside] == 128).all()
        seen.add((top, left))
    assert seen == {(y, x) for y in range(3) for x in range(2)}


def test_random_pad__large_axes_do_not_change():
    results = RandomPad(size=(6, 9))(_aligned(7, 8))
    assert results['img'].shape == (9, 8, 3)
    before = _aligned(12, 8)
    after = RandomPad(size=(6, 9))(dict(before))
    assert after['img'] is before['img'] and after['gt_seg_map'] is before['gt_seg_map']


def test_random_pad__without_index_map():
    results = RandomPad(size=(9, 9))(dict(img=np.zeros((4, 4, 3), np.uint8)))
    assert results['img'].shape == (9, 9, 3) and 'gt_seg_map' not in results


@pytest.mark.parametrize('size', [(3, ), (3, 0)])
def test_random_pad__invalid_size(size):
    with pytest.raises(ValueError, match=r'\(width, height\)'):
        RandomPad(size=size)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('size', [(20, 31), (90, 70)])
def test_spatial_transforms__photo_and_map_stay_aligned(size, dtype):
    """Padding and mmdet's crop and flip work without boxes, and keep the dtype of the map."""
    pipeline = Compose([
        TRANSFORMS.build(step)
        for step in (dict(type='RandomPad', size=(65, 33)), dict(type='RandomCrop', crop_size=(65, 33)),
                     dict(type='RandomFlip', prob=0.5))
    ])
    flips = 0
    for _ in range(20):
        results = pipeline(_aligned(*size, dtype))
        assert results['img'].shape == (33, 65, 3) and results['gt_seg_map'].shape == (33, 65)
        assert results['gt_seg_map'].dtype == dtype and results['img_shape'] == (33, 65)
        inside = results['gt_seg_map'] > 0
        assert np.array_equal(results['img'][inside][:, 0], results['gt_seg_map'][inside])
        assert (results['img'][~inside] == 128).all()
        assert inside.sum() == min(size[0], 33) * min(size[1], 65)
        flips += results['flip']
    assert 0 < flips < 20


def test_spatial_transforms__resize_keeps_uint16_maps():
    index = (np.arange(16).reshape(4, 4) * 4000).astype(np.uint16)
    resize = TRANSFORMS.build(dict(type='RandomChoiceResize', scales=[(8, 8)], keep_ratio=True))
    results = resize(dict(img=np.zeros((4, 4, 3), np.uint8), gt_seg_map=index))
    assert results['gt_seg_map'].dtype == np.uint16
    assert np.array_equal(results['gt_seg_map'], np.kron(index, np.ones((2, 2), np.uint16)))
