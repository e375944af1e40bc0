import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from remax_mm.models.task_modules import PQSimilarityAssigner, assign_targets_to_slots
from remax_mm.structures import MaskPrediction, PanopticTargets, SlotTargets
from tests.dense_criterion import masks_of
from tests.loss_reference import load_inputs, load_targets, to_predictions
from tests.worked_example import random_prediction, random_targets, void_targets, worked_example


def _reference_slot_targets(prediction: MaskPrediction, targets: PanopticTargets,
                            matches: list) -> SlotTargets:
    """Slot by slot and pixel by pixel."""
    num_images, num_slots, height, width = prediction.mask_logits.shape
    num_classes = prediction.class_logits.shape[-1] - 1
    owner = torch.full((num_images, height, width), num_slots)
    area = torch.zeros(num_images, num_slots, dtype=prediction.mask_logits.dtype)
    class_targets = torch.zeros_like(prediction.class_logits)
    class_weights, mask_weights = torch.zeros_like(area), torch.zeros_like(area)
    inverse_area = torch.zeros(num_images, height, width, dtype=area.dtype)
    for b in range(num_images):
        segment_of = dict(zip(matches[b].slot.tolist(), matches[b].segment.tolist()))
        for y, x in itertools.product(range(height), range(width)):
            for slot, segment in segment_of.items():
                if targets.owner[b, y, x] == segment:
                    owner[b, y, x] = slot
                    area[b, slot] += 1
        for y, x in itertools.product(range(height), range(width)):
            slot = owner[b, y, x]
            inverse_area[b, y, x] = height * width / (1 if slot == num_slots else area[b, slot])
        probability = prediction.mask_logits[b].softmax(0)
        for n in range(num_slots):
            on_void = float((probability[n] * (owner[b] == num_slots)).sum()) / (
                float(probability[n].sum()) + 1e-5)
            class_weights[b, n] = max(on_void, 1e-5)
            class_targets[b, n, num_classes] = 1
        for p, (slot, segment) in enumerate(segment_of.items()):
            class_targets[b, slot] = 0
            class_targets[b, slot, targets.labels[b, segment]] = 1
            class_weights[b, slot] = max(float(matches[b].mask_dice[p]), 1e-5)
            mask_weights[b, slot] = max(float(matches[b].class_similarity[p]), 1e-5)
    return SlotTargets(owner, area, class_targets, class_weights, mask_weights, targets.sem_seg, inverse_area)


@pytest.mark.parametrize('num_segments', [1, 3, 9])  # 9 segments are more than the 6 slots
def test_assign_targets_to_slots__loops(num_segments):
    prediction = random_prediction()
    targets = random_targets(num_segments=num_segments)
    matches = PQSimilarityAssigner().assign(prediction, targets)
    slot_targets = assign_targets_to_slots(prediction, targets, matches)
    for ours, expected in zip(slot_targets, _reference_slot_targets(prediction, targets, matches)):
        torch.testing.assert_close(ours, expected)


def test_assign_targets_to_slots__worked_example():
    _, targets, slot_targets = worked_example()

    def close(actual: Tensor, expected: list) -> None:
        torch.testing.assert_close(actual, torch.tensor(expected).to(actual), rtol=0, atol=6e-7)

    close(slot_targets.owner.flatten(), [0, 0, 1, 1, 1, 3])
    close(slot_targets.area, [[2, 3, 0]])
    close(slot_targets.class_targets[0], [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    close(slot_targets.class_weights[0], [.721303, .769719, .532676])
    close(slot_targets.mask_weights[0], [.786986, .576117, 0])
    close(slot_targets.inverse_area.flatten(), [3, 3, 2, 2, 2, 6])
    assert torch.equal(slot_targets.void, targets.void)


def test_assign_targets_to_slots__no_segments():
    # The whole map is void, so every slot lies on void pixels only.
    prediction, targets = random_prediction(), void_targets()
    matches = PQSimilarityAssigner().assign(prediction, targets)
    slot_targets = assign_targets_to_slots(prediction, targets, matches)
    assert slot_targets.void.all() and not slot_targets.area.any() and not slot_targets.mask_weights.any()
    assert (slot_targets.inverse_area == 25).all() and (slot_targets.class_targets[..., -1] == 1).all()
    area = prediction.mask_logits.softmax(1).sum((2, 3))
    torch.testing.assert_close(slot_targets.class_weights, area / (area + 1e-5))


def test_assign_targets_to_slots__permuted_slots():
    prediction, targets = random_prediction(), random_targets()
    order = torch.randperm(6)
    permuted = prediction._replace(
        class_logits=prediction.class_logits[:, order], mask_logits=prediction.mask_logits[:, order])
    assigner = PQSimilarityAssigner()
    expected = assign_targets_to_slots(prediction, targets, assigner.assign(prediction, targets))
    actual = assign_targets_to_slots(permuted, targets, assigner.assign(permuted, targets))
    for name in ('area', 'class_targets', 'class_weights', 'mask_weights'):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name)[:, order])
    new_slot = torch.cat([order.argsort(), torch.tensor([6])])
    assert torch.equal(actual.owner, new_slot[expected.owner])
    torch.testing.assert_close(actual.inverse_area, expected.inverse_area)


def test_assign_targets_to_slots__full_precision_without_gradient():
    prediction, targets = random_prediction(dtype=torch.float32), random_targets()
    prediction = MaskPrediction(*(part.bfloat16().requires_grad_() for part in prediction[:3]))
    matches = PQSimilarityAssigner().assign(prediction, targets)
    for part in assign_targets_to_slots(prediction, targets, matches):
        assert not part.requires_grad
        assert part.dtype in (torch.float32, torch.int64)


def test_assign_targets_to_slots__reference(reference_dir):
    prediction = to_predictions(load_inputs(reference_dir))[-1]
    targets = load_targets(reference_dir, 'all_pixels')
    slot_targets = assign_targets_to_slots(prediction, targets,
                                           PQSimilarityAssigner().assign(prediction, targets))
    with np.load(reference_dir / 'loss_processed_gt.npz') as file:
        expected = {name: torch.from_numpy(file[name]) for name in file.files}

    assert torch.equal(masks_of(slot_targets.owner, 12, torch.float32), expected['masks'])
    assert torch.equal(slot_targets.area, expected['masks'].sum((2, 3)))
    assert torch.equal(slot_targets.class_targets.argmax(-1), expected['labels'])
    assert torch.equal(slot_targets.void, expected['pixel_gt_void_mask'])
    assert torch.equal(slot_targets.sem_seg, expected['ground_truth_semantic'])
    torch.testing.assert_close(slot_targets.inverse_area, expected['inverse_gt_mask_area'])
    torch.testing.assert_close(slot_targets.mask_weights, expected['pq_loss_mask_weight'])
    torch.testing.assert_close(slot_targets.class_weights, expected['pq_loss_class_weight'])
