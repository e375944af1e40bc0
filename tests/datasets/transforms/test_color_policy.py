"""Color operations by hand and against PIL, and the policy against the numbers of deeplab2."""
import cv2
import numpy as np
import pytest
from mmdet.registry import TRANSFORMS
from PIL import Image, ImageEnhance, ImageOps

from remax_mm.datasets.transforms.color_policy import (COLOR_OPERATIONS, SIMPLE_POLICY, ColorPolicy,
                                                       adjust_brightness, adjust_color, adjust_contrast,
                                                       adjust_sharpness, equalize, solarize)

# deeplab2, data/preprocessing/autoaugment_policy.py.
OPERATIONS = ('AutoContrast', 'Equalize', 'Invert', 'Posterize', 'Solarize', 'Color', 'Contrast',
              'Brightness', 'Sharpness')
SIMPLE_NUMBERS = [8, 2, 7, 7, 1, 10, 1, 0, 9, 6, 1, 10, 8, 1, 9, 5, 1, 9, 4, 1, 7, 1, 3, 9, 8, 1, 1, 1, 1, 7]


@pytest.fixture(autouse=True)
def _numpy_seed():
    np.random.seed(0)


def _decode(numbers):
    """Pairs of steps from a flat list of triples (operation, five times the probability, level)."""
    steps = [(OPERATIONS[numbers[i]], numbers[i + 1] / 5, numbers[i + 2]) for i in range(0, len(numbers), 3)]
    return [tuple(steps[i:i + 2]) for i in range(0, len(steps), 2)]


def _photo(height=40, width=30):
    """(H, W, 3) smooth colors over the whole range, in the order B, G, R."""
    cells = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)


def _pixels(*rows):
    return np.array(rows, np.uint8)[None]


def test_simple_policy__equals_deeplab2():
    # From the test of the decoding in deeplab2.
    assert _decode([5, 1, 10, 5, 3, 4]) == [(('Color', 0.2, 10), ('Color', 0.6, 4))]
    assert _decode([1, 4, 9, 4, 5, 7]) == [(('Equalize', 0.8, 9), ('Solarize', 1.0, 7))]
    assert [
        tuple((step.operation.capitalize(), step.probability, step.level) for step in pair)
        for pair in SIMPLE_POLICY
    ] == _decode(SIMPLE_NUMBERS)


def test_solarize__by_hand():
    # Level 7: threshold int(179.2) = 179. Level 7 * 0.2: int(35.84) = 35.
    assert solarize(_pixels([0, 178, 179], [180, 200, 255]), 7).tolist() == [[[0, 178, 76], [75, 55, 0]]]
    assert solarize(_pixels([34, 35, 36]), 7 * 0.2).tolist() == [[[34, 220, 219]]]


def test_adjust_brightness__by_hand():
    # Level 10: factor 1.9. Level 0: 0.1. Level 5: 1.
    image = _pixels([0, 10, 100], [134, 135, 255])
    assert adjust_brightness(image, 10).tolist() == [[[0, 19, 190], [255, 255, 255]]]
    assert adjust_brightness(image, 0).tolist() == [[[0, 1, 10], [13, 14, 26]]]
    assert np.array_equal(adjust_brightness(image, 5), image)


def test_adjust_contrast__by_hand():
    # Grays 50 and 150: mean 100. Factor 1.9: 100 - 95 and 100 + 95. Factor 1.4 / 10 * 1.8 + 0.1 = 0.352.
    image = _pixels([50, 50, 50], [150, 150, 150])
    assert adjust_contrast(image, 10)[0, :, 0].tolist() == [5, 195]
    assert adjust_contrast(image, 1.4)[0, :, 0].tolist() == [82, 118]
    assert adjust_contrast(_pixels([10, 10, 10], [250, 250, 250]), 10)[0, :, 0].tolist() == [0, 255]


def test_adjust_color__by_hand():
    # Gray of (B, G, R) = (200, 100, 50): 0.114 * 200 + 0.587 * 100 + 0.299 * 50 = 96.45, so 96.
    # Level 9: factor 1.72, 96 + 1.72 * (104, 4, -46) = 274.9, 102.9, 16.9.
    assert adjust_color(_pixels([200, 100, 50]), 9).tolist() == [[[255, 103, 17]]]
    assert adjust_color(_pixels([77, 77, 77]), 9).tolist() == [[[77, 77, 77]]]


def test_adjust_sharpness__by_hand():
    # A center of 130 among 0: smoothed to 50. Level 7: factor 1.36, 50 + 1.36 * 80 = 158.8.
    image = np.zeros((3, 3, 3), np.uint8)
    image[1, 1] = 130
    expected = np.zeros((3, 3, 3), np.uint8)
    expected[1, 1] = 159
    assert np.array_equal(adjust_sharpness(image, 7), expected)
    # Level 1: factor 0.28, 50 + 0.28 * 80 = 72.4. Border pixels do not change.
    image[0, 0] = 255  # smoothed center 905 / 13 = 69.6, so 70: 70 + 0.28 * 60 = 86.8
    assert adjust_sharpness(image, 1)[..., 0].tolist() == [[255, 0, 0], [0, 87, 0], [0, 0, 0]]


def test_equalize__by_hand():
    # 510 pixels of 10, 510 of 20, 4 of 30: step (1024 - 4) // 255 = 4, values (2 + below) // 4.
    channel = np.repeat(np.array([10, 20, 30], np.uint8), [510, 510, 4]).reshape(32, 32)
    image = np.stack([channel, channel + 1, np.full_like(channel, 9)], -1)
    equalized = equalize(image, 9)
    assert [np.unique(equalized[..., c]).tolist() for c in range(3)] == [[0, 128, 255], [0, 128, 255], [9]]


@pytest.mark.parametrize('level', [0, 0.2, 1, 1.4, 2, 7, 9, 10])
def test_operations__equal_pil(level):
    """Up to 1 (2 for color): PIL truncates a blend, OpenCV rounds it, and grays may differ by 1."""
    image = _photo()
    pil = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
    factor = level / 10 * 1.8 + 0.1
    expected = dict(
        sharpness=ImageEnhance.Sharpness(pil).enhance(factor),
        brightness=ImageEnhance.Brightness(pil).enhance(factor),
        contrast=ImageEnhance.Contrast(pil).enhance(factor),
        color=ImageEnhance.Color(pil).enhance(factor),
        solarize=ImageOps.solarize(pil, int(level / 10 * 256)),
        equalize=ImageOps.equalize(pil))
    assert set(expected) == set(COLOR_OPERATIONS)
    for name, operation in COLOR_OPERATIONS.items():
        before = image.copy()
        result = operation(image, level)
        assert result.dtype == np.uint8 and result.shape == image.shape
        difference = abs(result[..., ::-1].astype(int) - np.asarray(expected[name]))
        assert difference.max() <= {'solarize': 0, 'equalize': 0, 'color': 2}.get(name, 1), name
        assert np.array_equal(image, before)


@pytest.fixture
def applied(monkeypatch):
    """List of the (operation, level) that are applied; images do not change."""
    steps = []
    for name in COLOR_OPERATIONS:

        def record(image, level, name=name):
            steps.append((name, round(level, 6)))
            return image

        monkeypatch.setitem(COLOR_OPERATIONS, name, record)
    return steps


def test_color_policy__frequency_of_each_operation(applied):
    policy, image = ColorPolicy(), _pixels([1, 2, 3])
    for _ in range(10000):
        policy(dict(img=image))
    # Each pair is applied to a fifth of the images. No two pairs share an operation with the same level.
    expected = dict.fromkeys([('brightness', 10), ('contrast', 10), ('sharpness', 9), ('color', 9),
                              ('solarize', 7), ('sharpness', 1), ('equalize', 7)], 400)
    expected.update({('sharpness', 7): 800, ('equalize', 9): 1200})
    assert set(applied) == set(expected)
    for step, count in expected.items():
        assert abs(applied.count(step) - count) < 4 * (count * (1 - count / 10000))**0.5, step


def test_color_policy__steps_are_from_one_pair(applied):
    drawn = set()
    for _ in range(2000):
        applied.clear()
        ColorPolicy()(dict(img=_pixels([1, 2, 3])))
        drawn.add(tuple(applied))
    whole = {tuple((step.operation, step.level) for step in pair) for pair in SIMPLE_POLICY}
    impossible = (('equalize', 9), ('contrast', 10))  # its first operation has probability 0
    single = {(step, ) for pair in whole for step in pair}
    assert drawn == {(), *single, *whole} - {impossible}


def test_color_policy__magnitude_scale(applied):
    policy = ColorPolicy(magnitude_scale=0.2)
    for _ in range(500):
        policy(dict(img=_pixels([1, 2, 3])))
    assert set(applied) == {('sharpness', 1.4), ('brightness', 2.0), ('contrast', 2.0), ('sharpness', 1.8),
                            ('color', 1.8), ('solarize', 1.4), ('equalize', 1.8), ('sharpness', 0.2),
                            ('equalize', 1.4)}


def test_color_policy__index_map_unchanged_and_seed_reproducible():
    policy = TRANSFORMS.build(dict(type='ColorPolicy'))
    index = np.ones((40, 30), np.uint8)
    runs = []
    for _ in range(2):
        np.random.seed(3)
        runs.append([policy(dict(img=_photo(), gt_seg_map=index)) for _ in range(20)])
    assert all(np.array_equal(a['img'], b['img']) for a, b in zip(*runs))
    assert all(results['gt_seg_map'] is index for results in runs[0])
    assert 3 < sum(not np.array_equal(results['img'], _photo()) for results in runs[0]) < 17


@pytest.mark.parametrize('image', [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8)])
def test_color_policy__invalid_image(image):
    with pytest.raises(ValueError, match='uint8 for ColorPolicy, but a.png is'):
        ColorPolicy()(dict(img=image, img_path='a.png'))


@pytest.mark.parametrize('scale', [0, -0.2, 1.5])
def test_color_policy__scale_out_of_range(scale):
    with pytest.raises(ValueError, match='magnitude_scale'):
        ColorPolicy(magnitude_scale=scale)
