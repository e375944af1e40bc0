import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from remax_mm.models.task_modules import PQSimilarityAssigner, assign_targets_to_slots
from remax_mm.structures import MaskPrediction, Match, PanopticTargets, SlotTargets
from tests.loss_reference import load_inputs, load_targets, to_predictions
from tests.worked_example import random_prediction, random_targets, worked_example


def _reference_slot_targets(prediction: MaskPrediction, targets: PanopticTargets,
                            matches: list) -> SlotTargets:
    """Slot by slot and pixel by pixel."""
    num_images, num_slots, height, width = prediction.mask_logits.shape
    num_classes = prediction.class_logits.shape[-1] - 1
    masks = torch.zeros_like(prediction.mask_logits)
    class_targets = torch.zeros_like(prediction.class_logits)
    class_weights = torch.zeros(num_images, num_slots, dtype=masks.dtype)
    mask_weights = torch.zeros_like(class_weights)
    void = torch.zeros(num_images, height, width, dtype=torch.bool)
    inverse_area = torch.zeros(num_images, height, width, dtype=masks.dtype)
    for b in range(num_images):
        segment_of = dict(zip(matches[b].slot.tolist(), matches[b].segment.tolist()))
        for y, x in itertools.product(range(height), range(width)):
            here = [slot for slot, segment in segment_of.items() if targets.masks[b, segment, y, x] == 1]
            void[b, y, x] = not here
            for slot in here:
                masks[b, slot, y, x] = 1 / len(here)
        for y, x in itertools.product(range(height), range(width)):
            area = sum(float(masks[b, n, y, x] * masks[b, n].sum()) for n in range(num_slots))
            inverse_area[b, y, x] = height * width / max(area, 1)
        probability = prediction.mask_logits[b].softmax(0)
        for n in range(num_slots):
            on_void = float((probability[n] * void[b]).sum()) / (float(probability[n].sum()) + 1e-5)
            class_weights[b, n] = max(on_void, 1e-5)
            class_targets[b, n, num_classes] = 1
        for p, (slot, segment) in enumerate(segment_of.items()):
            class_targets[b, slot] = 0
            class_targets[b, slot, targets.labels[b, segment]] = 1
            class_weights[b, slot] = max(float(matches[b].mask_dice[p]), 1e-5)
            mask_weights[b, slot] = max(float(matches[b].class_similarity[p]), 1e-5)
    return SlotTargets(masks, class_targets, class_weights, mask_weights, void, targets.sem_seg, inverse_area)


@pytest.mark.parametrize('num_segments', [1, 3, 9])  # 9 segments are more than the 6 slots
@pytest.mark.parametrize('overlap', [False, True])
def test_assign_targets_to_slots__loops(num_segments, overlap):
    prediction = random_prediction()
    targets = random_targets(num_segments=num_segments, overlap=overlap)
    matches = PQSimilarityAssigner().assign(prediction, targets)
    slot_targets = assign_targets_to_slots(prediction, targets, matches)
    for ours, expected in zip(slot_targets, _reference_slot_targets(prediction, targets, matches)):
        torch.testing.assert_close(ours, expected)


def test_assign_targets_to_slots__worked_example():
    _, targets, slot_targets = worked_example()

    def close(actual: Tensor, expected: list) -> None:
        torch.testing.assert_close(actual, torch.tensor(expected).to(actual), rtol=0, atol=6e-7)

    close(slot_targets.masks[0].flatten(1), [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0], [0] * 6])
    close(slot_targets.class_targets[0], [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    close(slot_targets.class_weights[0], [.721303, .769719, .532676])
    close(slot_targets.mask_weights[0], [.786986, .576117, 0])
    close(slot_targets.inverse_area.flatten(), [3, 3, 2, 2, 2, 6])
    assert torch.equal(slot_targets.void, targets.void)


def test_assign_targets_to_slots__void_ratio_without_segments():
    prediction, targets, _ = worked_example()
    empty = Match(*(torch.zeros(0, dtype=t)
                    for t in (torch.int64, torch.int64, torch.float64, torch.float64)))
    # Without a match, the whole map is void, so every slot lies on void pixels only.
    slot_targets = assign_targets_to_slots(prediction, targets, [empty])
    assert slot_targets.void.all() and not slot_targets.masks.any() and not slot_targets.mask_weights.any()
    assert (slot_targets.inverse_area == 6).all() and (slot_targets.class_targets[..., -1] == 1).all()
    area = prediction.mask_logits.softmax(1).sum((2, 3))
    torch.testing.assert_close(slot_targets.class_weights, area / (area + 1e-5))


@pytest.mark.parametrize('count', range(1, 33))
def test_assign_targets_to_slots__shared_pixel_is_never_void(count):
    # In float32, the sum of n shares of 1/n is less than 1 for some n.
    prediction = random_prediction(1, 32, 2, dtype=torch.float32)
    masks = torch.ones(1, count, 2, 2)
    targets = PanopticTargets(masks, torch.zeros(1, count, dtype=torch.int64),
                              torch.zeros(1, 2, 2).bool(), torch.zeros(1, 2, 2, dtype=torch.int64))
    matches = PQSimilarityAssigner().assign(prediction, targets)
    slot_targets = assign_targets_to_slots(prediction, targets, matches)
    assert not slot_targets.void.any()
    torch.testing.assert_close(slot_targets.masks.sum(1), torch.ones(1, 2, 2))


def test_assign_targets_to_slots__permuted_slots():
    prediction, targets = random_prediction(), random_targets()
    order = torch.randperm(6)
    permuted = prediction._replace(
        class_logits=prediction.class_logits[:, order], mask_logits=prediction.mask_logits[:, order])
    assigner = PQSimilarityAssigner()
    expected = assign_targets_to_slots(prediction, targets, assigner.assign(prediction, targets))
    actual = assign_targets_to_slots(permuted, targets, assigner.assign(permuted, targets))
    for name in ('masks', 'class_targets', 'class_weights', 'mask_weights'):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name)[:, order])
    assert torch.equal(actual.void, expected.void)
    torch.testing.assert_close(actual.inverse_area, expected.inverse_area)


def test_assign_targets_to_slots__full_precision_without_gradient():
    prediction, targets = random_prediction(dtype=torch.float32), random_targets(dtype=torch.float32)
    prediction = MaskPrediction(*(part.bfloat16().requires_grad_() for part in prediction[:3]))
    matches = PQSimilarityAssigner().assign(prediction, targets)
    for part in assign_targets_to_slots(prediction, targets, matches):
        assert not part.requires_grad
        assert part.dtype in (torch.float32, torch.int64, torch.bool)


def test_assign_targets_to_slots__reference(reference_dir):
    prediction = to_predictions(load_inputs(reference_dir))[-1]
    targets = load_targets(reference_dir, 'all_pixels')
    slot_targets = assign_targets_to_slots(prediction, targets,
                                           PQSimilarityAssigner().assign(prediction, targets))
    with np.load(reference_dir / 'loss_processed_gt.npz') as file:
        expected = {name: torch.from_numpy(file[name]) for name in file.files}

    assert torch.equal(slot_targets.masks, expected['masks'])
    assert torch.equal(slot_targets.class_targets.argmax(-1), expected['labels'])
    assert torch.equal(slot_targets.void, expected['pixel_gt_void_mask'])
    assert torch.equal(slot_targets.sem_seg, expected['ground_truth_semantic'])
    torch.testing.assert_close(slot_targets.inverse_area, expected['inverse_gt_mask_area'])
    torch.testing.assert_close(slot_targets.mask_weights, expected['pq_loss_mask_weight'])
    torch.testing.assert_close(slot_targets.class_weights, expected['pq_loss_class_weight'])
