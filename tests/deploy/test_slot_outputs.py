import numpy as np
import pytest
import torch
import torch.nn.functional as F

from remax_mm.deploy.remax_runtime import merge_mask_wise, merge_pixel_wise
from remax_mm.deploy.slot_outputs import SlotOutputs, mask_wise_outputs, pixel_wise_outputs, resized_positions
from remax_mm.models.heads import fuse_panoptic, fuse_panoptic_pixelwise

SIZES = [  # mask, input, image in it, result
    ((17, 17), (65, 65), (65, 49), (130, 77)),
    ((33, 41), (129, 161), (129, 160), (50, 301)),
    ((17, 17), (65, 65), (40, 65), (7, 9)),
    ((33, 33), (129, 129), (100, 129), (333, 17)),
    ((17, 17), (17, 17), (17, 17), (1, 5)),
]
MASK_WISE = dict(
    thing_threshold=0.3,
    stuff_threshold=0.25,
    pixel_threshold=0.4,
    overlap_threshold=0.6,
    class_order_weight=1.0,
    mask_order_weight=1.0,
    thing_area=3,
    stuff_area=20)
PIXEL_WISE = dict(class_threshold=0.3, pixel_threshold=0.4, thing_area=3, stuff_area=20)


@pytest.fixture(params=SIZES, ids=lambda sizes: 'x'.join(map(str, sizes[3])))
def case(request):
    mask_size, input_size, image_size, output_size = request.param
    class_logits = 2 * torch.randn(2, 7, 6)
    # Smooth masks, so that slots overlap in regions
    small = 8 * torch.randn(2, 7, 5, 5)
    mask_logits = F.interpolate(small, size=mask_size, mode='bilinear')
    sizes = (input_size, image_size, torch.tensor(output_size))
    aligned = dict(mode='bilinear', align_corners=True)
    whole = F.interpolate(mask_logits, input_size, **aligned)[..., :image_size[0], :image_size[1]]
    whole = F.interpolate(whole, output_size, **aligned)
    return class_logits, mask_logits, sizes, whole


def _of_image(outputs: SlotOutputs, index: int) -> dict:
    values = outputs._asdict().items()
    return {name: value[index].numpy() for name, value in values if value is not None}


def test_mask_wise_outputs__of_the_whole_masks(case):
    class_logits, mask_logits, sizes, whole = case
    outputs = mask_wise_outputs(class_logits, mask_logits, *sizes, pixel_threshold=0.4)
    for index, logits in enumerate(whole):
        probability = logits.softmax(0)
        own = probability > 0.4
        best = probability.topk(2, dim=0)
        torch.testing.assert_close(outputs.probabilities[index], best.values, rtol=0, atol=1e-4)
        sums = (probability * own).sum((1, 2))
        for first in range(7):
            assert abs(int(outputs.areas[index, first]) -
                       int(own[first].sum())) <= 1  # rounding at the threshold
            expected = float(sums[first] / max(int(own[first].sum()), 1))
            assert float(outputs.mask_scores[index, first]) == pytest.approx(expected, abs=0.01)
            for second in range(7):
                shared = int((own[first] & own[second]).sum()) if first != second else 0
                assert abs(int(outputs.overlaps[index, first, second]) - shared) <= 1


@pytest.mark.parametrize('kind', ['mask-wise', 'pixel-wise'])
def test_merge__is_the_fusion(case, kind):
    class_logits, mask_logits, sizes, whole = case
    if kind == 'mask-wise':
        outputs = mask_wise_outputs(class_logits, mask_logits, *sizes, MASK_WISE['pixel_threshold'])
        merge, fuse, thresholds = merge_mask_wise, fuse_panoptic, MASK_WISE
    else:
        outputs = pixel_wise_outputs(class_logits, mask_logits, *sizes, PIXEL_WISE['class_threshold'],
                                     PIXEL_WISE['pixel_threshold'])
        merge, fuse, thresholds = merge_pixel_wise, fuse_panoptic_pixelwise, PIXEL_WISE
    for index, logits in enumerate(whole):
        segment_map, segments = merge(_of_image(outputs, index), 3, **thresholds)
        expected_map, expected = fuse(class_logits[index], logits, num_things=3, **thresholds)
        # Another order of the interpolation may decide otherwise for a pixel at a threshold.
        assert (segment_map != expected_map.numpy()).sum() <= 1 + 1e-3 * segment_map.size
        assert [(s.label, s.is_thing) for s in segments] == [(s.category, s.is_thing) for s in expected]
        np.testing.assert_allclose([s.score for s in segments], [s.score for s in expected], atol=1e-3)


def test_merge__accepts_the_first_of_two_that_share_pixels():
    # Slot 0 has pixels 0 to 5, slot 1 has 4 to 9: 2 of its 6 pixels are taken, and 4 / 6 > 0.6 are free.
    outputs = dict(
        slots=np.array([[[0] * 6 + [1] * 4], [[1] * 10]], dtype=np.int32),
        probabilities=np.array([[[0.5] * 10], [[0.1] * 4 + [0.45] * 2 + [0.0] * 4]], dtype=np.float32),
        classes=np.array([0, 1]),
        class_scores=np.array([0.9, 0.8], dtype=np.float32),
        areas=np.array([6, 6]),
        mask_scores=np.array([0.5, 0.5], dtype=np.float32),
        overlaps=np.array([[0, 2], [2, 0]]))
    thresholds = dict(MASK_WISE, thing_area=0, stuff_area=0)
    segment_map, segments = merge_mask_wise(outputs, 2, **thresholds)
    assert segment_map.tolist() == [[1] * 6 + [2] * 4] and [s.label for s in segments] == [0, 1]
    segment_map, segments = merge_mask_wise(outputs, 2, **dict(thresholds, overlap_threshold=0.7))
    assert segment_map.tolist() == [[1] * 6 + [0] * 4] and [s.label for s in segments] == [0]


def test_resized_positions__by_hand():
    # 3 mask rows in an input of 5 rows, image of 4 rows, result of 7 rows: steps of 0.5 rows of the image
    positions = resized_positions(3, 5, 4, torch.tensor(7))
    weights = positions.weights(torch.arange(3))
    expected = [[1, 0, 0], [.75, .25, 0], [.5, .5, 0], [.25, .75, 0], [0, 1, 0], [0, .75, .25], [0, .5, .5]]
    torch.testing.assert_close(weights, torch.tensor(expected))
