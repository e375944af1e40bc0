import cv2
import numpy as np
import pytest
from mmdet.datasets import ADE20KPanopticDataset, CityscapesDataset, CocoPanopticDataset

from remax_mm.visualization import draw_panoptic, shade, short_name
from remax_mm.visualization.draw_panoptic import VOID_COLORS

CLASSES = ('cat', 'dog', 'sky')
PALETTE = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]


def _image(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_draw_panoptic__blends_colors_and_hatches_void():
    image = _image(12, 16)
    panoptic_map = np.full((12, 16), 3)
    panoptic_map[:, 8:] = 2
    drawn = draw_panoptic(image, panoptic_map, CLASSES, PALETTE, alpha=0.25)
    expected = np.rint(0.75 * image[:, 8:] + 0.25 * np.array(PALETTE[2]))
    np.testing.assert_allclose(drawn[:, 8:], expected, atol=1)
    assert (drawn[:, 7] == 255).all()  # the border

    # Each void pixel has one of two grays, which form diagonals: the same at (y, x) and (y + 1, x - 1).
    blends = np.rint(0.75 * image[None, :, :7] + 0.25 * np.array(VOID_COLORS)[:, None, None])
    gray = (np.abs(blends - drawn[:, :7]) <= 1).all(-1)
    assert gray.any(0).all() and gray.any((1, 2)).all() and not gray.all(0).any()
    np.testing.assert_array_equal(gray[:, :-1, 1:], gray[:, 1:, :-1])


def test_draw_panoptic__does_not_change_the_image():
    image = _image(40, 60)
    before = image.copy()
    draw_panoptic(image, np.zeros((40, 60), int), CLASSES, PALETTE)
    np.testing.assert_array_equal(image, before)


def test_draw_panoptic__images_of_any_memory_layout():
    # Large enough that NumPy reuses the memory of intermediate results, and thus their layout.
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    panoptic_map = np.zeros((200, 300), np.int32)
    turned = np.ascontiguousarray(image.transpose(2, 0, 1)[::-1]).transpose(1, 2, 0)[..., ::-1]
    assert np.array_equal(turned, image) and turned.strides != image.strides
    assert np.array_equal(
        draw_panoptic(turned, panoptic_map, ['cat']), draw_panoptic(image, panoptic_map, ['cat']))


@pytest.mark.parametrize('value', [3, 7, 3003, 999, -1, -5000, 2**31 - 1])
def test_draw_panoptic__only_void_or_unknown_values(value):
    """An empty prediction does not look like the photo."""
    image = _image(60, 90)
    drawn = draw_panoptic(image, np.full((60, 90), value), CLASSES, PALETTE)
    np.testing.assert_array_equal(drawn, draw_panoptic(image, np.full((60, 90), 3), CLASSES, PALETTE))
    assert (drawn != image).any(-1).mean() > 0.95


@pytest.mark.parametrize('size', [(1, 1), (1, 50), (50, 1), (2, 3), (0, 5)])
@pytest.mark.parametrize('classes', [CLASSES, ('a class with a name that is far wider than the image', ) * 3])
def test_draw_panoptic__tiny_images(size, classes):
    panoptic_map = np.arange(size[0] * size[1]).reshape(size) % 3 + 1000
    assert draw_panoptic(_image(*size), panoptic_map, classes).shape == (*size, 3)


def _texts(monkeypatch, *args, **kwargs):
    """The texts that are written, without those of other calls."""
    written = []
    put_text = cv2.putText
    monkeypatch.setattr(cv2, 'putText',
                        lambda image, text, *rest: written.append(text) or put_text(image, text, *rest))
    draw_panoptic(*args, **kwargs)
    monkeypatch.undo()
    return written


def test_draw_panoptic__text_of_labels(monkeypatch):
    image, panoptic_map = np.zeros((200, 300, 3), np.uint8), np.full((200, 300), 2)
    panoptic_map[:100, :150], panoptic_map[100:, :150] = 5001, 7000
    classes = ('cat', 'dog', 'sky-other-merged')
    assert sorted(_texts(monkeypatch, image, panoptic_map, classes)) == ['cat #7', 'dog #5', 'sky']
    scores = {5001: 0.876, 2: 1., 7000: None}
    assert sorted(_texts(monkeypatch, image, panoptic_map, classes,
                         scores=scores)) == ['cat #7', 'dog #5 0.88', 'sky 1.00']
    assert _texts(monkeypatch, image, np.full((200, 300), 3), classes, scores={3: 0.5}) == []  # void


def test_draw_panoptic__label_inside_or_beside_a_segment():
    image, panoptic_map = np.zeros((200, 300, 3), np.uint8), np.full((200, 300), 1)
    tint = np.rint(0.6 * np.array(PALETTE[1]))
    drawn = draw_panoptic(image, panoptic_map, CLASSES, PALETTE)
    assert (drawn[[0, -1]] == tint).all()
    assert (drawn > 128).all(axis=-1).sum() > 20  # white text, and no borders
    panoptic_map[:, 148:152] = 2000  # a pole
    drawn = draw_panoptic(image, panoptic_map, CLASSES, PALETTE)
    dark = (drawn == np.array(shade(PALETTE[0], 2)) // 3).all(-1).nonzero()
    assert len(dark[0]) > 100  # the background of its label, which hides no pixel of the pole
    assert not ((dark[1] >= 148) & (dark[1] < 152)).any()


@pytest.mark.parametrize('name, expected', [('wall-other-merged', 'wall'), ('door-stuff', 'door'),
                                            ('tree-merged', 'tree'), ('wall-brick', 'wall-brick'),
                                            ('signboard, sign', 'signboard'), ('merged', 'merged'),
                                            ('other-merged-lane', 'other-merged-lane')])
def test_short_name__by_hand(name, expected):
    assert short_name(name) == expected


@pytest.mark.parametrize('dataset', [CocoPanopticDataset, CityscapesDataset, ADE20KPanopticDataset])
def test_short_name__classes_stay_different(dataset):
    classes = dataset.METAINFO['classes']
    assert len({short_name(name) for name in classes}) == len(classes)


def test_draw_panoptic__every_dtype_and_many_segments():
    image = _image(30, 40)
    panoptic_map = np.arange(1200).reshape(30, 40) * 1000
    for dtype in (np.int32, np.int64, np.uint32):
        assert draw_panoptic(image, panoptic_map.astype(dtype), CLASSES, PALETTE).shape == image.shape


def test_draw_panoptic__bad_input():
    with pytest.raises(ValueError, match=r'\(4, 6\)'):
        draw_panoptic(_image(4, 6), np.zeros((4, 5), int), CLASSES)
    with pytest.raises(ValueError, match='3 classes, but got 1'):
        draw_panoptic(_image(4, 6), np.zeros((4, 6), int), CLASSES, PALETTE[:1])
