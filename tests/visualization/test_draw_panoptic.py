import numpy as np
import pytest

from remax_mm.visualization import draw_panoptic, label_panels, shade, spread_colors

CLASSES = ('cat', 'dog', 'sky')
PALETTE = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]


def _image(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_draw_panoptic__blends_colors_except_on_void():
    image = _image(4, 6)
    panoptic_map = np.full((4, 6), 3)
    panoptic_map[:, 3:] = 2
    drawn = draw_panoptic(image, panoptic_map, CLASSES, PALETTE, alpha=0.25)
    np.testing.assert_array_equal(drawn[:, :2], image[:, :2])
    expected = np.rint(0.75 * image[:, 3:] + 0.25 * np.array(PALETTE[2]))
    np.testing.assert_allclose(drawn[:, 3:], expected, atol=1)
    assert (drawn[:, 2] == 255).all()  # the border


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
    image = _image(20, 30)
    np.testing.assert_array_equal(draw_panoptic(image, np.full((20, 30), value), CLASSES, PALETTE), image)


@pytest.mark.parametrize('size', [(1, 1), (1, 50), (50, 1), (2, 3), (0, 5)])
@pytest.mark.parametrize('classes', [CLASSES, ('a class with a name that is far wider than the image', ) * 3])
def test_draw_panoptic__tiny_images(size, classes):
    panoptic_map = np.arange(size[0] * size[1]).reshape(size) % 3 + 1000
    assert draw_panoptic(_image(*size), panoptic_map, classes).shape == (*size, 3)


def test_draw_panoptic__names_on_large_segments():
    image, panoptic_map = np.zeros((200, 300, 3), np.uint8), np.full((200, 300), 1)
    tint = np.rint(0.6 * np.array(PALETTE[1]))
    drawn = draw_panoptic(image, panoptic_map, CLASSES, PALETTE)
    assert (drawn[[0, -1]] == tint).all()
    assert (drawn > 128).all(axis=-1).sum() > 20  # white text, and no borders
    panoptic_map[3:] = 3  # only three rows are left, too few for a name
    drawn = draw_panoptic(image, panoptic_map, CLASSES, PALETTE)
    assert (drawn[:2] == tint).all() and (drawn[2] == 255).all() and not drawn[3:].any()


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


def test_shade__instances_differ_slightly():
    shades = np.array([shade((200, 30, 40), instance) for instance in range(1, 9)])
    distances = np.abs(shades[:, None] - shades[None]).sum(-1)
    assert distances[~np.eye(8, dtype=bool)].min() > 15
    assert (shades[:, 0] > shades[:, 1]).all() and (shades[:, 0] > shades[:, 2]).all()  # all reddish
    assert shade((200, 30, 40), 0) == (200, 30, 40)
    for instance in range(300):
        for color in ((0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 255)):
            assert all(0 <= channel <= 255 for channel in shade(color, instance))


def test_spread_colors__all_different():
    colors = spread_colors(150)
    assert len(set(colors)) == 150 and spread_colors(0) == []


def test_label_panels__side_by_side_below_titles():
    panels = [('a', np.full((50, 80, 3), 10, np.uint8)), ('b', np.full((50, 80, 3), 20, np.uint8))]
    drawn = label_panels(panels)
    bar = drawn.shape[0] - 50
    assert bar > 0 and drawn.shape[1] == 164
    assert (drawn[bar:, :80] == 10).all() and (drawn[bar:, 84:] == 20).all()
    assert (drawn[:bar, :80] < 128).any() and (drawn[:bar, 84:] < 128).any()  # the titles
