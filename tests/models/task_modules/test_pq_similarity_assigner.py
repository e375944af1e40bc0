import itertools

import numpy as np
import pytest
import torch
from mmdet.registry import TASK_UTILS
from torch import Tensor

from remax_mm.models.task_modules import PQSimilarityAssigner, class_similarity, mask_dice, mask_overlap
from remax_mm.models.task_modules.pq_similarity_assigner import _match_image
from remax_mm.structures import MaskPrediction, PanopticTargets
from tests.loss_reference import CASES, load_inputs, load_outputs, load_targets, to_predictions
from tests.worked_example import random_prediction, random_targets, targets_of, worked_example


def _mask_dice(mask_logits: Tensor, targets: PanopticTargets) -> Tensor:
    return mask_dice(mask_overlap(mask_logits, targets.owner, targets.labels.shape[1]), targets.area)


def test_mask_dice__loops():
    prediction, targets = random_prediction(), random_targets()
    probability = prediction.mask_logits.softmax(1)
    expected = torch.zeros(2, 3, 6, dtype=torch.float64)
    for b, m, n in itertools.product(range(2), range(3), range(6)):
        slot, mask = probability[b, n] * (targets.owner[b] != 3), targets.owner[b] == m
        expected[b, m, n] = (slot * mask).sum() / ((slot.sum() + mask.sum()) / 2 + 1e-5)
    torch.testing.assert_close(_mask_dice(prediction.mask_logits, targets), expected)


def test_mask_overlap__last_column_is_void():
    prediction, targets = random_prediction(), random_targets()
    overlap = mask_overlap(prediction.mask_logits, targets.owner, 3)
    probability = prediction.mask_logits.softmax(1)
    torch.testing.assert_close(overlap[..., 3], (probability * targets.void[:, None]).sum((2, 3)))
    torch.testing.assert_close(overlap.sum(2), probability.sum((2, 3)))


def test_mask_dice__worked_example():
    prediction, targets, _ = worked_example()
    expected = torch.tensor([[[.721303, .225941, .144053], [.108409, .769719, .290294]]], dtype=torch.float64)
    similarity = _mask_dice(prediction.mask_logits, targets)
    torch.testing.assert_close(similarity, expected, rtol=0, atol=6e-7)


def test_class_similarity__worked_example():
    prediction, targets, _ = worked_example()
    expected = torch.tensor([[[.786986, .211942, .211942], [.106507, .576117, .211942]]], dtype=torch.float64)
    similarity = class_similarity(prediction.class_logits, targets.labels)
    torch.testing.assert_close(similarity, expected, rtol=0, atol=6e-7)


def _match(similarity: np.ndarray) -> np.ndarray:
    """Segments and slots by a given mask similarity (M, N), where all class similarities are 1."""
    is_segment = np.ones((len(similarity), 1))
    table = np.concatenate([similarity, np.ones_like(similarity), is_segment], axis=1)
    return _match_image(table, image=0)[1:]


@pytest.mark.parametrize(
    'cost, columns',
    [  # deeplab2, model/loss/matchers_ops_test.py; each optimum is unique
        ([[4, 1, 3], [2, 0, 5], [3, 2, 2]], [1, 0, 2]),
        ([[1, 4, 3], [0, 2, 5], [2, 3, 2]], [0, 1, 2]),
        ([[1, 3, 4], [0, 5, 2], [2, 2, 3]], [0, 2, 1]),
    ])
def test_match_image__deeplab2(cost, columns):
    segment, slot = _match(-np.array(cost, dtype=np.float64))
    assert segment.tolist() == [0, 1, 2] and slot.tolist() == columns


@pytest.mark.parametrize('num_segments, num_slots', [(3, 5), (5, 3), (4, 4), (0, 3)])
def test_match_image__largest_total_similarity(num_segments, num_slots):
    similarity = np.random.RandomState(0).rand(num_segments, num_slots)
    segment, slot = _match(similarity)
    assert len(segment) == min(num_segments, num_slots) == len(set(slot.tolist()))
    assert segment.tolist() == sorted(set(segment.tolist()))

    table = similarity if num_segments <= num_slots else similarity.T
    pairings = itertools.permutations(range(table.shape[1]), table.shape[0])
    best = max(sum(table[row, column] for row, column in enumerate(columns)) for columns in pairings)
    assert similarity[segment, slot].sum() == pytest.approx(best, rel=1e-12)


def test_assign__worked_example():
    prediction, targets, _ = worked_example()
    match, = PQSimilarityAssigner().assign(prediction, targets)
    assert match.segment.tolist() == [0, 1] and match.slot.tolist() == [0, 1]
    torch.testing.assert_close(match.mask_dice, torch.tensor([.721303, .769719]).double(), rtol=0, atol=6e-7)
    torch.testing.assert_close(
        match.class_similarity, torch.tensor([.786986, .576117]).double(), rtol=0, atol=6e-7)
    # Only pixel 5 is void, where the slots have softmax(-1, 0, 2); slot 2 has 1.584 pixels in sum.
    void, area = prediction.mask_logits.softmax(1)[0, :, 1, 2], prediction.mask_logits.softmax(1).sum(
        (0, 2, 3))
    torch.testing.assert_close(match.void_ratio, void / (area + 1e-5))


@pytest.mark.parametrize('case', CASES)
def test_assign__reference(reference_dir, case):
    predictions = to_predictions(load_inputs(reference_dir))
    targets = load_targets(reference_dir, case)
    outputs = load_outputs(reference_dir, case)
    found = [name for name in outputs if name.startswith('matching_')]
    assert len(found) == (4 if case == 'separate_matching' else 1)
    for name in found:
        prediction = predictions[('aux0', 'aux1', 'aux2', 'final').index(name[len('matching_'):])]
        for match, expected in zip(PQSimilarityAssigner().assign(prediction, targets), outputs[name]):
            order = np.argsort(expected['gt'])
            assert match.segment.tolist() == np.array(expected['gt'])[order].tolist()
            assert match.slot.tolist() == np.array(expected['query'])[order].tolist()
            for ours, theirs in ((match.mask_dice, 'dice'), (match.class_similarity, 'cls_prob')):
                torch.testing.assert_close(ours, torch.tensor(expected[theirs])[order].to(ours))


def _one_image(values: tuple, image: int) -> tuple:
    return type(values)(*(None if part is None else part[image:image + 1] for part in values))


def test_assign__single_equals_batched():
    prediction = random_prediction(3)
    targets = random_targets(3)
    batched = PQSimilarityAssigner().assign(prediction, targets)
    for image, match in enumerate(batched):
        single, = PQSimilarityAssigner().assign(_one_image(prediction, image), _one_image(targets, image))
        for part, expected in zip(single, match):
            torch.testing.assert_close(part, expected)


def test_assign__images_without_segments_and_with_padding():
    prediction = random_prediction(3)
    targets = random_targets(3)
    owner, labels = targets.owner.clone(), targets.labels.clone()
    owner[0], labels[0] = 3, 4  # all void
    labels[1, 1] = 4  # padding between two segments
    owner[1][owner[1] == 1] = 3
    matches = PQSimilarityAssigner().assign(prediction, targets_of(owner, labels, 4))
    assert [match.segment.tolist() for match in matches] == [[], [0, 2], [0, 1, 2]]
    assert all(part.numel() == 0 for part in matches[0][:4])
    assert matches[0].slot.dtype == torch.int64
    torch.testing.assert_close(matches[0].void_ratio, torch.ones(6).double(), rtol=0, atol=1e-5)


def test_assign__void_ratio_includes_segments_without_a_slot():
    prediction, targets = random_prediction(num_slots=3), random_targets(num_segments=7)
    probability = prediction.mask_logits.softmax(1)
    for image, match in enumerate(PQSimilarityAssigner().assign(prediction, targets)):
        outside = torch.stack([targets.owner[image] != segment for segment in match.segment]).all(0)
        expected = (probability[image] * outside).sum((1, 2)) / (probability[image].sum((1, 2)) + 1e-5)
        torch.testing.assert_close(match.void_ratio, expected)


def test_assign__more_segments_than_slots():
    prediction, targets = random_prediction(num_slots=3), random_targets(num_segments=7)
    for match in PQSimilarityAssigner().assign(prediction, targets):
        assert sorted(match.slot.tolist()) == [0, 1, 2]
        assert match.segment.tolist() == sorted(set(match.segment.tolist())) and len(match.segment) == 3


def test_assign__void_pixels_change_nothing():
    prediction, targets = random_prediction(), random_targets()
    noise = torch.randn_like(prediction.mask_logits) * targets.void[:, None]
    noisy = prediction._replace(mask_logits=prediction.mask_logits + 5 * noise)
    for match, expected in zip(PQSimilarityAssigner().assign(noisy, targets),
                               PQSimilarityAssigner().assign(prediction, targets)):
        for part, expected_part in zip(match[:-1], expected[:-1]):  # all but the void ratio
            torch.testing.assert_close(part, expected_part)


def test_assign__permuted_slots():
    prediction, targets = random_prediction(), random_targets()
    order = torch.randperm(6)
    permuted = MaskPrediction(prediction.class_logits[:, order], prediction.mask_logits[:, order], None)
    for match, expected in zip(PQSimilarityAssigner().assign(permuted, targets),
                               PQSimilarityAssigner().assign(prediction, targets)):
        assert torch.equal(order[match.slot], expected.slot) and torch.equal(match.segment, expected.segment)


def test_assign__ignores_relaxed_masks():
    prediction, targets = random_prediction(), random_targets()
    relaxed = prediction._replace(relaxed_mask_logits=torch.full_like(prediction.mask_logits, float('nan')))
    for match, expected in zip(PQSimilarityAssigner().assign(relaxed, targets),
                               PQSimilarityAssigner().assign(prediction, targets)):
        assert torch.equal(match.slot, expected.slot)


def test_assign__full_precision_under_autocast():
    prediction, targets = random_prediction(dtype=torch.float32), random_targets()
    expected = PQSimilarityAssigner().assign(prediction, targets)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        matches = PQSimilarityAssigner().assign(prediction, targets)
    for match, expected_match in zip(matches, expected):
        assert all(torch.equal(part, other) for part, other in zip(match, expected_match))

    half = MaskPrediction(prediction.class_logits.bfloat16(), prediction.mask_logits.bfloat16(), None)
    assert PQSimilarityAssigner().assign(half, targets)[0].mask_dice.dtype == torch.float32


@pytest.mark.parametrize('part', ['mask', 'class'])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_assign__not_finite(part, value):
    prediction, targets = random_prediction(), random_targets()
    getattr(prediction, f'{part}_logits')[1, 2, 0] = value
    with pytest.raises(FloatingPointError, match=f'{part} similarity of image 1 '):
        PQSimilarityAssigner().assign(prediction, targets)


def test_assign__one_copy_to_the_host(no_host_copies):
    prediction, targets = random_prediction(4), random_targets(4)
    with no_host_copies(allowed=1):
        PQSimilarityAssigner().assign(prediction, targets)


def test_assign__built_from_config():
    assert isinstance(TASK_UTILS.build(dict(type='PQSimilarityAssigner')), PQSimilarityAssigner)
    with pytest.raises(TypeError):
        TASK_UTILS.build(dict(type='PQSimilarityAssigner', mask_void=False))
