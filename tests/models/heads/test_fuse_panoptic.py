"""Mask-wise fusion, and the removal of small segments."""
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from remax_mm.models.heads import Segment, fuse_panoptic
from remax_mm.models.heads.panoptic_fusion_head import drop_small_segments
from tests.models.heads.drawn_masks import LOGIT, draw, drawn_classes, drawn_masks


def _reference_fusion(class_logits, mask_logits, num_things, options):
    """The mask-wise fusion of kMaX-DeepLab in loops over pixels."""
    num_slots, height, width = mask_logits.shape
    classes = class_logits.softmax(-1)[:, :-1].tolist()
    masks = mask_logits.softmax(0).tolist()
    slots = []
    for slot in range(num_slots):
        score = max(classes[slot])
        own = [(row, column) for row in range(height) for column in range(width)
               if masks[slot][row][column] > options['pixel_threshold']]
        mask_score = sum(masks[slot][row][column] for row, column in own) / max(len(own), 1)
        order = score**options['class_order_weight'] * mask_score**options['mask_order_weight']
        slots.append((-order, slot, classes[slot].index(score), score, own))

    painted = [[None] * width for _ in range(height)]
    for _, slot, category, score, own in sorted(slots):
        is_thing = category < num_things
        free = [(row, column) for row, column in own if painted[row][column] is None]
        if score > options['thing_threshold' if is_thing else 'stuff_threshold'] and own and (
                len(free) > options['overlap_threshold'] * len(own)):
            for row, column in free:
                painted[row][column] = (category, slot if is_thing else None)

    pixels = [pixel for row in painted for pixel in row]
    for row in range(height):
        for column in range(width):
            if painted[row][column] is not None:
                area = pixels.count(painted[row][column])
                if area < options['thing_area' if painted[row][column][0] < num_things else 'stuff_area']:
                    painted[row][column] = None
    return painted


@pytest.mark.parametrize('name', ['coco', 'cityscapes', 'ade20k'])
def test_fuse_panoptic__equals_the_reference(reference_dir, name):
    data = np.load(reference_dir / 'panoptic_inference.npz')
    expected = json.loads((reference_dir / 'panoptic_inference.json').read_text())[name]
    thresholds = expected['thresholds']
    segment_map, segments = fuse_panoptic(
        torch.from_numpy(data['class_logits']),
        torch.from_numpy(data['mask_logits']),
        num_things=80,
        thing_threshold=thresholds['thing'],
        stuff_threshold=thresholds['stuff'],
        pixel_threshold=thresholds['pix'],
        overlap_threshold=thresholds['over'],
        class_order_weight=thresholds['rc'],
        mask_order_weight=thresholds['rm'])
    assert (segment_map.numpy() == data[f'panoptic_seg_{name}']).all()
    assert [dict(id=s.id, isthing=s.is_thing, category_id=s.category)
            for s in segments] == expected['segments_info']
    assert torch.bincount(segment_map.flatten())[1:].tolist() == expected['areas']


def test_fuse_panoptic__example_of_deeplab2():
    # max_deeplab_test.py of google-research/deeplab2; its id is 10 * class id + rank of the slot.
    mask_logits = -10 * torch.ones(3, 5, 5)
    slots = ['aaaaa', 'abbaa', 'cbbcc', 'cbbcc', 'ccccc']
    for row, letters in enumerate(slots):
        for column, letter in enumerate(letters):
            mask_logits['abc'.index(letter), row, column] = 10
    class_logits = -10 * torch.ones(3, 3)
    class_logits[[0, 1, 2], [0, 0, 1]] = 10
    segment_map, segments = fuse_panoptic(
        class_logits,
        mask_logits,
        num_things=2,
        thing_threshold=0.7,
        stuff_threshold=0.7,
        overlap_threshold=0.5,
        class_order_weight=1,
        mask_order_weight=0,
        thing_area=3,
        stuff_area=3)
    assert draw(segment_map) == slots
    assert [(s.id, s.category) for s in segments] == [(1, 0), (2, 0), (3, 1)]


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('options', [
    dict(),
    dict(overlap_threshold=0.5, pixel_threshold=0.2),
    dict(thing_area=4, stuff_area=7),
    dict(class_order_weight=0.0),
    dict(mask_order_weight=0.0, thing_threshold=0.3, stuff_threshold=0.6)
])
def test_fuse_panoptic__loops(seed, options):
    defaults = dict(
        thing_threshold=0.45,
        stuff_threshold=0.35,
        pixel_threshold=0.4,
        overlap_threshold=0.8,
        class_order_weight=1.0,
        mask_order_weight=1.0,
        thing_area=0,
        stuff_area=0)
    options = {**defaults, **options}
    generator = torch.Generator().manual_seed(seed)
    class_logits = 2 * torch.randn(9, 5, generator=generator)
    coarse = 5 * torch.randn(1, 9, 3, 3, generator=generator)
    mask_logits = F.interpolate(coarse, (7, 9), mode='bilinear', align_corners=True)[0]

    segment_map, segments = fuse_panoptic(class_logits, mask_logits, num_things=2, **options)
    painted = _reference_fusion(class_logits, mask_logits, 2, options)
    found = {}
    for row in range(7):
        for column in range(9):
            value, expected = segment_map[row, column].item(), painted[row][column]
            assert (value == 0) == (expected is None)
            if value:
                assert segments[value - 1].category == expected[0]
                assert found.setdefault(value, expected) == expected  # one segment, one slot or stuff class
    assert len(found) == len(segments) == len(set(found.values()))
    assert [s.id for s in segments] == list(range(1, len(segments) + 1))


def test_fuse_panoptic__stuff_of_one_class_is_one_segment():
    mask_logits = drawn_masks('aab.', 'cbb.', 'cdd.')
    segment_map, segments = fuse_panoptic(drawn_classes(2, 0, 2, 3), mask_logits, num_things=2)
    assert draw(segment_map) == ['aab.', 'abb.', 'acc.']
    assert [s[:3] for s in segments] == [(1, 2, False), (2, 0, True), (3, 3, False)]


def test_fuse_panoptic__things_of_one_class_are_separate_segments():
    segment_map, segments = fuse_panoptic(drawn_classes(1, 1), drawn_masks('aab.', 'abb.'), num_things=2)
    assert draw(segment_map) == ['aab.', 'abb.']
    assert [s[:3] for s in segments] == [(1, 1, True), (2, 1, True)]


@pytest.mark.parametrize('num_things, is_thing', [(4, True), (0, False)])
def test_fuse_panoptic__things_or_stuff_only(num_things, is_thing):
    segment_map, segments = fuse_panoptic(
        drawn_classes(3, 3, 0), drawn_masks('aab', 'cbb'), num_things=num_things)
    assert draw(segment_map) == (['aab', 'cbb'] if is_thing else ['aaa', 'baa'])
    assert {s.is_thing for s in segments} == {is_thing}


def test_fuse_panoptic__nothing_found():
    for class_logits in (drawn_classes(4, 4), torch.zeros(3, 5)):
        segment_map, segments = fuse_panoptic(class_logits, drawn_masks('aab', 'bbb'), num_things=2)
        assert segment_map.shape == (2, 3) and segment_map.dtype == torch.int32
        assert not segment_map.any() and segments == []


def test_fuse_panoptic__equal_scores_keep_the_order_of_the_slots():
    # 20 pixels with two slots each that have equal masks and classes.
    mask_logits = torch.zeros(40, 1, 20)
    for pair in range(20):
        mask_logits[2 * pair:2 * pair + 2, 0, pair] = LOGIT
    class_logits = LOGIT * F.one_hot(torch.zeros(40, dtype=torch.long), 3).float()
    segment_map, segments = fuse_panoptic(class_logits, mask_logits, num_things=2, overlap_threshold=0.5)
    assert segment_map.tolist() == [list(range(1, 21))]
    assert [s.id for s in segments] == list(range(1, 21))


def test_fuse_panoptic__rejected_slots_occupy_no_pixels():
    # Both slots have all four pixels; the one with the higher score is below its threshold.
    mask_logits = torch.zeros(3, 1, 4)
    mask_logits[2] = -LOGIT
    class_logits = torch.tensor([[LOGIT, 0., 0., 0.], [1., 0., 0., 0.], [0., 0., 0., LOGIT]])
    segment_map, segments = fuse_panoptic(
        class_logits, mask_logits, num_things=0, stuff_threshold=0.999, thing_threshold=0.1)
    assert [s.category for s in segments] == [0] and segment_map.tolist() == [[1] * 4]
    segment_map, _ = fuse_panoptic(
        class_logits.flip(0), mask_logits.flip(0), num_things=0, stuff_threshold=0.999, thing_threshold=0.1)
    assert segment_map.tolist() == [[1] * 4]


def test_fuse_panoptic__thresholds_are_strict():
    # Two slots with exactly half of every pixel and exactly half a class probability each.
    mask_logits, class_logits = torch.zeros(2, 2, 2), torch.zeros(2, 2)
    half = dict(num_things=1, thing_threshold=0.4, pixel_threshold=0.4, overlap_threshold=0.9)
    assert len(fuse_panoptic(class_logits, mask_logits, **half)[1]) == 1
    assert fuse_panoptic(class_logits, mask_logits, **{**half, 'thing_threshold': 0.5})[1] == []
    assert fuse_panoptic(class_logits, mask_logits, **{**half, 'pixel_threshold': 0.5})[1] == []

    # Two of the four pixels of slot 1 are occupied: exactly half of them are free.
    mask_logits = torch.tensor([[0., 0., -LOGIT, -LOGIT], [0., 0., LOGIT, LOGIT]])[:, None]
    class_logits = torch.tensor([[LOGIT, 0.], [2., 0.]])
    options = dict(num_things=1, pixel_threshold=0.4, mask_order_weight=0.0)
    assert len(fuse_panoptic(class_logits, mask_logits, overlap_threshold=0.5, **options)[1]) == 1
    assert len(fuse_panoptic(class_logits, mask_logits, overlap_threshold=0.49, **options)[1]) == 2


def test_fuse_panoptic__score_is_class_times_mask_probability():
    mask_logits = torch.tensor([[2., -LOGIT], [0., LOGIT]])[:, None]  # slot 0 has one pixel, with sigmoid(2)
    class_logits = torch.tensor([[3., 0.], [0., LOGIT]])
    _, segments = fuse_panoptic(class_logits, mask_logits, num_things=1)
    assert len(segments) == 1
    expected = torch.tensor([2., 3.], dtype=torch.float64).sigmoid().prod().item()
    assert segments[0].score == pytest.approx(expected)


def test_drop_small_segments__example_of_deeplab2():
    # filter_by_count with limit 3 removes ids 2 (two pixels) and 4 (one) and keeps 5 (three).
    segment_map = torch.tensor([[1, 1, 1, 1], [1, 2, 2, 1], [3, 3, 3, 3], [4, 5, 5, 5]], dtype=torch.int32)
    segments = [Segment(index, 0, True, 0.5) for index in range(1, 6)]
    areas = torch.bincount(segment_map.flatten())[1:].tolist()
    new_ids, kept = drop_small_segments(segments, areas, thing_area=3, stuff_area=100)
    assert torch.tensor(new_ids)[segment_map.long()].tolist() == [[1, 1, 1, 1], [1, 0, 0, 1], [2, 2, 2, 2],
                                                                  [0, 3, 3, 3]]
    assert kept == [Segment(1, 0, True, 0.5), Segment(2, 0, True, 0.5), Segment(3, 0, True, 0.5)]


def test_fuse_panoptic__area_limits_count_merged_stuff():
    # Two pieces of stuff of two pixels each reach the limit together; a thing of two pixels does not.
    options = dict(num_things=2, thing_area=3, stuff_area=4)
    segment_map, segments = fuse_panoptic(
        drawn_classes(2, 0, 2, 1), drawn_masks('aabb', 'ccdd', '..d.'), **options)
    assert draw(segment_map) == ['aa..', 'aabb', '..b.']
    assert [s[:3] for s in segments] == [(1, 2, False), (2, 1, True)]
