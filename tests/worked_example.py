"""Six pixels, three slots, two classes: an example for which every loss can be computed by hand.

Segment A covers pixels 0 and 1 (class 0), B pixels 2, 3, 4 (class 1); pixel 5 is void. The expected numbers
of the tests that use it were computed in numpy from the formulas, without this package.
"""
from typing import NamedTuple

import torch

from remax_mm.models.task_modules import PQSimilarityAssigner, assign_targets_to_slots
from remax_mm.structures import MaskPrediction, PanopticTargets, SlotTargets

NUM_CLASSES = 2


class WorkedExample(NamedTuple):
    prediction: MaskPrediction
    targets: PanopticTargets
    slot_targets: SlotTargets


def worked_example(dtype: torch.dtype = torch.float64) -> WorkedExample:
    """One image of 2 x 3 pixels, and its targets with A matched to slot 0 and B to slot 1."""
    by_pixel = [[2, 0, -1], [1, 1, 0], [-1, 2, 0], [0, 3, -2], [0, 1, 1], [-1, 0, 2]]
    features = [[1, 0], [.6, .8], [0, 1], [0, 1], [-.6, .8], [1, 0]]
    prediction = MaskPrediction(
        class_logits=torch.tensor([[[2, 0, 0], [0, 1, 0], [0, 0, 1]]], dtype=dtype),
        mask_logits=torch.tensor(by_pixel, dtype=dtype).T.reshape(1, 3, 2, 3),
        pixel_feature=torch.tensor(features, dtype=dtype).T.reshape(1, 2, 2, 3))
    targets = PanopticTargets(
        owner=torch.tensor([0, 0, 1, 1, 1, 2]).reshape(1, 2, 3),
        labels=torch.tensor([[0, 1]]),
        area=torch.tensor([[2, 3]]),
        sem_seg=torch.tensor([0, 0, 1, 1, 1, 2]).reshape(1, 2, 3))
    matches = PQSimilarityAssigner().assign(prediction, targets)
    return WorkedExample(prediction, targets, assign_targets_to_slots(prediction, targets, matches))


def random_targets(num_images: int = 2,
                   num_segments: int = 3,
                   size: int = 5,
                   num_classes: int = 4) -> PanopticTargets:
    """Segments of random pixels; on average, one of ``num_segments + 1`` pixels is void."""
    owner = torch.randint(0, num_segments + 1, (num_images, size, size))
    owner.view(num_images, -1)[:, :num_segments] = torch.arange(num_segments)  # no segment is empty
    return targets_of(owner, torch.randint(0, num_classes, (num_images, num_segments)), num_classes)


def targets_of(owner: torch.Tensor, labels: torch.Tensor, num_classes: int) -> PanopticTargets:
    """Targets with the areas and classes of a map (B, h, w) and labels (B, M); label K for padding."""
    num_segments = labels.shape[1]
    area = torch.stack([(owner == segment).sum((1, 2)) for segment in range(num_segments + 1)], dim=1)
    with_void = torch.cat([labels, labels.new_full((len(labels), 1), num_classes)], dim=1)
    sem_seg = with_void.gather(1, owner.flatten(1)).view_as(owner)
    return PanopticTargets(owner, labels, area[:, :-1], sem_seg)


def void_targets(num_images: int = 2, size: int = 5, num_classes: int = 4) -> PanopticTargets:
    """One row of padding, and void pixels only."""
    owner = torch.zeros(num_images, size, size, dtype=torch.int64)
    return targets_of(owner + 1, torch.full((num_images, 1), num_classes), num_classes)


def random_prediction(num_images: int = 2,
                      num_slots: int = 6,
                      size: int = 5,
                      num_classes: int = 4,
                      dtype: torch.dtype = torch.float64) -> MaskPrediction:
    """Standard normal logits and unit features of 3 channels."""
    feature = torch.randn(num_images, 3, size, size, dtype=dtype)
    return MaskPrediction(
        torch.randn(num_images, num_slots, num_classes + 1, dtype=dtype),
        torch.randn(num_images, num_slots, size, size, dtype=dtype),
        feature / feature.norm(dim=1, keepdim=True))


def random_slot_targets(prediction: MaskPrediction, targets: PanopticTargets) -> SlotTargets:
    """Targets matched to the prediction."""
    return assign_targets_to_slots(prediction, targets, PQSimilarityAssigner().assign(prediction, targets))
