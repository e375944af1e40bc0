from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from remax_mm.analysis.training_overhead import TensorMemory
from remax_mm.models.losses import (InstanceDiscriminationLoss, PanopticCriterion, PQClassLoss, PQMaskLoss,
                                    SemanticLoss, SigmoidMaskIDLoss)
from remax_mm.models.relaxations.reclass import class_coverage, relax_class_targets
from remax_mm.structures import MaskPrediction, PanopticTargets
from tests.dense_criterion import DenseCriterion
from tests.loss_reference import (CASES, load_inputs, load_outputs, load_sample_indices, load_targets,
                                  to_predictions)
from tests.worked_example import random_prediction, random_slot_targets, random_targets, void_targets

# our key: (the reference's key, weight)
REFERENCE_NAMES = dict(
    loss_cls=('loss_ce', 3.),
    loss_mask_id=('loss_mask', .3),
    loss_dice=('loss_dice', 3.),
    loss_insdis=('loss_pixel_insdis', 1.),
    loss_sem=('loss_aux_semantic', 1.))


def _criterion(**changes: Any) -> PanopticCriterion:
    config: Dict[str, Any] = dict(
        type='PanopticCriterion',
        assigner=dict(type='PQSimilarityAssigner'),
        loss_cls=dict(type='PQClassLoss'),
        loss_dice=dict(type='PQMaskLoss'),
        loss_mask_id=dict(type='SoftmaxMaskIDLoss'))
    config.update(changes)
    return MODELS.build(config)


def reference_criterion(case: str) -> PanopticCriterion:
    """With the settings of the public code in a case."""
    return _criterion(
        loss_insdis=dict(type='InstanceDiscriminationLoss'),
        loss_sem=dict(type='SemanticLoss', num_samples=4096),
        share_final_matching=case != 'separate_matching')


def feed_samples(criterion: PanopticCriterion, folder: Path, case: str) -> None:
    """Use the pixels that the public code sampled."""
    if case != 'sampled_k64':
        return
    indices = load_sample_indices(folder)
    pixels = iter([indices[f'pixels_{output}'] for output in ('final', 'aux0', 'aux1', 'aux2')])
    criterion.loss_insdis.sampler = lambda targets: next(pixels)
    criterion.loss_sem.sampler = lambda targets: indices['aux_semantic_final']


def names_of_reference(name: str) -> Tuple[str, float]:
    """Name and weight of one of our losses in the public code."""
    stage, _, term = name.rpartition('.')
    theirs, weight = REFERENCE_NAMES[term]
    return (f'{theirs}_{stage[1:]}' if stage else theirs), weight


def _reference_run(folder, case: str, dtype: torch.dtype) -> tuple:
    inputs = load_inputs(folder, dtype)
    criterion = reference_criterion(case)
    feed_samples(criterion, folder, case)
    sem_logits = inputs['semantic_pred_low_res' if 'low_res' in case else 'final_aux_semantic_pred']
    return criterion(to_predictions(inputs), load_targets(folder, case), sem_logits), inputs


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('dtype, name, tolerance', [(torch.float32, 'losses', 1e-6),
                                                    (torch.float64, 'losses_float64', 1e-13)])
def test_forward__reference_losses(reference_dir, case, dtype, name, tolerance):
    losses, _ = _reference_run(reference_dir, case, dtype)
    outputs = load_outputs(reference_dir, case)
    expected = outputs[name]
    assert len(losses) == len(expected)
    for key, loss in losses.items():
        theirs, weight = names_of_reference(key)
        assert loss.item() / weight == pytest.approx(expected[theirs], rel=tolerance), key
    total = outputs[name.replace('losses', 'total_weighted')]
    assert sum(losses.values()).item() == pytest.approx(total, rel=tolerance)


@pytest.mark.parametrize('case', CASES)
def test_forward__reference_gradient_norms(reference_dir, case):
    losses, inputs = _reference_run(reference_dir, case, torch.float64)
    sum(losses.values()).backward()
    expected = load_outputs(reference_dir, case)['grad_norms']['total_weighted']
    for name, norm in expected.items():
        if 'low_res' in case and name == 'final_aux_semantic_pred':
            name = 'semantic_pred_low_res'
        assert inputs[name].grad.norm().item() == pytest.approx(norm, rel=1e-6), name  # theirs are float32


@pytest.mark.parametrize('case', ['all_pixels', 'sampled_k64'])
def test_forward__reference_gradients(reference_dir, case):
    losses, inputs = _reference_run(reference_dir, case, torch.float32)
    sum(losses.values()).backward()
    with np.load(reference_dir / 'loss_total_gradients.npz') as file:
        names = [name for name in file.files if name.startswith(case)]
        assert len(names) == 9
        for name in names:
            expected = torch.from_numpy(file[name])
            gradient = inputs[name[len(case) + 1:]].grad
            torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


def _stages(sizes=(3, 5, 9), **options) -> list:
    return [random_prediction(size=size, **options) for size in sizes]


def _losses_and_gradients(criterion: nn.Module, predictions: List[MaskPrediction], targets: PanopticTargets,
                          sem_logits: Tensor) -> Tuple[Dict[str, Tensor], List[Tensor]]:
    """The gradients are those of a sum of the losses with different weights."""
    torch.manual_seed(0)  # the same samples in each call
    losses = criterion(predictions, targets, sem_logits)
    inputs = [part for prediction in predictions for part in prediction if part is not None]
    for part in (*inputs, sem_logits):
        part.grad = None
    sum((1 + index) * loss for index, loss in enumerate(losses.values())).backward()
    return losses, [part.grad for part in (*inputs, sem_logits)]


@pytest.mark.parametrize('num_segments', [1, 3, 9])  # 9 segments are more than the 6 slots
@pytest.mark.parametrize('num_samples', [0, 40])
@pytest.mark.parametrize('changes', [
    dict(),
    dict(share_final_matching=False),
    dict(loss_mask_id=dict(type='SigmoidMaskIDLoss'), reclass=dict(type='ReClass', smoothing=0.2)),
])
def test_forward__equals_dense_criterion(changes, num_samples, num_segments):
    predictions, targets = _stages(), random_targets(size=9, num_segments=num_segments)
    predictions[1] = predictions[1]._replace(
        relaxed_mask_logits=3 * predictions[1].mask_logits, sem_logits=torch.randn(2, 4, 5, 5).double())
    for part in (part for prediction in predictions for part in prediction if part is not None):
        part.requires_grad_()
    sem_logits = torch.randn(2, 4, 9, 9, dtype=torch.float64, requires_grad=True)
    criterion = _criterion(
        loss_insdis=dict(type='InstanceDiscriminationLoss', num_samples=num_samples),
        loss_sem=dict(type='SemanticLoss', num_samples=num_samples, loss_weight=0.7),
        loss_stage_sem=dict(type='SemanticLoss', loss_weight=0.5),
        **changes).train()

    losses, gradients = _losses_and_gradients(criterion, predictions, targets, sem_logits)
    expected, expected_gradients = _losses_and_gradients(
        DenseCriterion(criterion), predictions, targets, sem_logits)
    assert list(losses) == list(expected)
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-12), name
    for gradient, expected_gradient in zip(gradients, expected_gradients):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('relaxed', [False, True])
def test_forward__keeps_no_resized_masks(relaxed):
    # What the losses keep for the backward pass is less than the resized masks of one output.
    predictions, targets = _stages((5, 5, 33), num_slots=100), random_targets(size=33)
    options = dict(
        loss_mask_id=dict(type='SigmoidMaskIDLoss'), reclass=dict(type='ReClass')) if relaxed else {}
    if relaxed:
        predictions[0] = predictions[0]._replace(relaxed_mask_logits=3 * predictions[0].mask_logits)
    supervised = [prediction.supervised_mask_logits.requires_grad_() for prediction in predictions]
    with TensorMemory() as memory:
        losses = _criterion(**options).train()(predictions, targets)
        assert memory.live < predictions[-1].mask_logits.nbytes / 2
        sum(losses.values()).backward()
    assert all(masks.grad.any() for masks in supervised)
    assert memory.peak < 6 * predictions[-1].mask_logits.nbytes


@pytest.mark.parametrize('loss', ['SoftmaxMaskIDLoss', 'SigmoidMaskIDLoss'])
def test_forward__one_softmax_for_all_mask_losses(loss, monkeypatch):
    calls = []
    log_softmax = Tensor.log_softmax
    monkeypatch.setattr(Tensor, 'log_softmax', lambda self, dim: calls.append(dim) or log_softmax(self, dim))
    _criterion(loss_mask_id=dict(type=loss))([random_prediction()], random_targets())
    assert calls.count(1) == 1  # over the slots; others are over the classes


def test_forward__keys_in_order():
    criterion = _criterion(
        loss_insdis=dict(type='InstanceDiscriminationLoss'),
        loss_sem=dict(type='SemanticLoss'),
        loss_stage_sem=dict(type='SemanticLoss', loss_weight=0.5))
    predictions = _stages()
    predictions[0] = predictions[0]._replace(sem_logits=torch.randn(2, 4, 3, 3))
    losses = criterion(predictions, random_targets(size=9), torch.randn(2, 4, 5, 5))
    terms = ['loss_cls', 'loss_mask_id', 'loss_dice', 'loss_insdis']
    assert list(losses) == [
        *terms, 'loss_sem', *(f'd0.{term}' for term in terms), 'd0.loss_sem',
        *(f'd1.{term}' for term in terms)
    ]
    assert all(loss.dim() == 0 for loss in losses.values())


def test_forward__computes_each_loss_for_resized_outputs():
    # Each term is the result of its loss class for the resized output and the final matching.
    predictions, targets = _stages(), random_targets(size=9)
    stage_sem = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    predictions[0] = predictions[0]._replace(
        sem_logits=stage_sem, relaxed_mask_logits=2 * predictions[0].mask_logits)
    criterion = _criterion(
        loss_mask_id=dict(type='SigmoidMaskIDLoss'),
        loss_insdis=dict(type='InstanceDiscriminationLoss'),
        loss_stage_sem=dict(type='SemanticLoss', loss_weight=0.5)).train()
    losses = criterion(predictions, targets)

    slot_targets = random_slot_targets(predictions[-1], targets)
    modules = dict(
        loss_cls=PQClassLoss(),
        loss_mask_id=SigmoidMaskIDLoss(),
        loss_dice=PQMaskLoss(),
        loss_insdis=InstanceDiscriminationLoss())
    for prefix, prediction in zip(('d0.', 'd1.', ''), predictions):
        resized = prediction._replace(
            **{
                name: F.interpolate(
                    getattr(prediction, name), size=(9, 9), mode='bilinear', align_corners=True)
                for name in ('mask_logits', 'pixel_feature', 'relaxed_mask_logits')
                if getattr(prediction, name) is not None
            })
        for name, module in modules.items():
            torch.testing.assert_close(losses[prefix + name], module(resized, slot_targets))
    torch.testing.assert_close(losses['d0.loss_sem'], 0.5 * SemanticLoss()(stage_sem, slot_targets))


def test_forward__separate_matching_uses_masks_before_relaxation():
    predictions, targets = _stages((9, 9)), random_targets(size=9)
    predictions[0] = predictions[0]._replace(relaxed_mask_logits=torch.randn(2, 6, 9, 9).double())
    losses = _criterion(share_final_matching=False)(predictions, targets)
    own_targets = random_slot_targets(predictions[0], targets)
    torch.testing.assert_close(losses['d0.loss_dice'], PQMaskLoss()(predictions[0], own_targets))
    shared = _criterion()(predictions, targets)
    assert losses['d0.loss_dice'] != shared['d0.loss_dice']
    assert losses['loss_dice'] == shared['loss_dice']


def test_forward__reclass_uses_the_masks_of_each_output_before_relaxation():
    predictions, targets = _stages((5, 9)), random_targets(size=9)
    predictions[0] = predictions[0]._replace(relaxed_mask_logits=3 * predictions[0].mask_logits)
    plain = _criterion()(predictions, targets)
    losses = _criterion(reclass=dict(type='ReClass', smoothing=0.2)).train()(predictions, targets)

    slot_targets = random_slot_targets(predictions[-1], targets)
    for prefix, prediction in zip(('d0.', ''), predictions):
        masks = F.interpolate(prediction.mask_logits, size=(9, 9), mode='bilinear', align_corners=True)
        coverage = class_coverage(masks, targets.sem_seg, 4)
        relaxed = slot_targets._replace(
            class_targets=relax_class_targets(slot_targets.class_targets, coverage, 0.2))
        torch.testing.assert_close(losses[prefix + 'loss_cls'], PQClassLoss()(prediction, relaxed))
        assert losses[prefix + 'loss_cls'] != plain[prefix + 'loss_cls']
        for name in ('loss_mask_id', 'loss_dice'):
            assert torch.equal(losses[prefix + name], plain[prefix + name])


@pytest.mark.parametrize('smoothing, training', [(0., True), (0.1, False)])
def test_forward__equals_plain_losses_without_relaxation(smoothing, training):
    predictions, targets = _stages(), random_targets(size=9)
    plain = _criterion()(predictions, targets)
    losses = _criterion(reclass=dict(type='ReClass', smoothing=smoothing)).train(training)(predictions,
                                                                                           targets)
    assert list(losses) == list(plain)
    assert all(torch.equal(losses[name], plain[name]) for name in plain)


def test_forward__class_loss_has_no_gradient_for_masks():
    predictions, targets = _stages(), random_targets(size=9)
    for prediction in predictions:
        prediction.mask_logits.requires_grad_()
        prediction.class_logits.requires_grad_()
    losses = _criterion(reclass=dict(type='ReClass')).train()(predictions, targets)
    masks = [prediction.mask_logits for prediction in predictions]
    class_losses = sum(loss for name, loss in losses.items() if name.endswith('loss_cls'))
    assert torch.autograd.grad(class_losses, masks, allow_unused=True, retain_graph=True) == (None, ) * 3

    # The mask losses have no gradient for the classes, although class probabilities are their weights.
    classes = [prediction.class_logits for prediction in predictions]
    others = sum(loss for name, loss in losses.items() if not name.endswith('loss_cls'))
    assert torch.autograd.grad(others, classes, allow_unused=True) == (None, ) * 3


def test_forward__void_pixels_change_nothing():
    # With as many segments as slots, no slot is weighted by its void ratio.
    predictions, targets = _stages((9, 9), num_slots=3), random_targets(size=9)
    criterion = _criterion(loss_sem=dict(type='SemanticLoss'), reclass=dict(type='ReClass')).train()
    sem_logits = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    noise = 5 * torch.randn(2, 1, 9, 9) * targets.void[:, None]
    noisy = [p._replace(mask_logits=p.mask_logits + noise * torch.randn(1, 3, 1, 1)) for p in predictions]
    losses = criterion(noisy, targets, sem_logits + noise * torch.randn(1, 4, 1, 1))
    for name, expected in criterion(predictions, targets, sem_logits).items():
        torch.testing.assert_close(losses[name], expected)


def test_forward__permuted_slots():
    predictions, targets = _stages(), random_targets(size=9)
    order = torch.randperm(6)
    permuted = [
        MaskPrediction(p.class_logits[:, order], p.mask_logits[:, order], p.pixel_feature)
        for p in predictions
    ]
    criterion = _criterion(
        loss_mask_id=dict(type='SigmoidMaskIDLoss'),
        loss_insdis=dict(type='InstanceDiscriminationLoss'),
        reclass=dict(type='ReClass')).train()
    losses = criterion(permuted, targets)
    for name, expected in criterion(predictions, targets).items():
        torch.testing.assert_close(losses[name], expected)


def test_forward__full_precision_under_autocast():
    predictions = _stages(dtype=torch.float32)
    targets = random_targets(size=9)
    criterion = _criterion(
        loss_insdis=dict(type='InstanceDiscriminationLoss'),
        loss_sem=dict(type='SemanticLoss'),
        reclass=dict(type='ReClass')).train()
    sem_logits = torch.randn(2, 4, 5, 5)
    expected = criterion(predictions, targets, sem_logits)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = criterion(predictions, targets, sem_logits)
    assert all(torch.equal(losses[name], expected[name]) for name in expected)

    half = [MaskPrediction(*(part.half() for part in prediction[:3])) for prediction in predictions]
    for loss in criterion(half, targets, sem_logits.half()).values():
        assert loss.dtype == torch.float32 and loss.isfinite()


@pytest.mark.parametrize('num_segments', [0, 3, 9])
def test_forward__gradient(num_segments):
    prediction = random_prediction(num_images=1, size=3, num_slots=4)
    targets = random_targets(1, num_segments, size=3) if num_segments else void_targets(1, size=3)
    criterion = _criterion(
        loss_mask_id=dict(type='SigmoidMaskIDLoss'), loss_insdis=dict(type='InstanceDiscriminationLoss'))

    # The losses treat the matching and the weights as constants, so they are fixed here.
    slot_targets = random_slot_targets(prediction, targets)
    criterion._assign = lambda prediction, targets: slot_targets
    inputs = [part.clone().requires_grad_() for part in prediction[:3]]
    assert torch.autograd.gradcheck(lambda *parts: sum(criterion([MaskPrediction(*parts)], targets).values()),
                                    inputs)


def test_forward__one_copy_to_the_host(no_host_copies):
    predictions, targets = _stages(), random_targets(size=9)
    predictions[0] = predictions[0]._replace(
        relaxed_mask_logits=3 * predictions[0].mask_logits, sem_logits=torch.randn(2, 4, 3, 3).double())
    criterion = _criterion(
        loss_mask_id=dict(type='SigmoidMaskIDLoss'),
        loss_insdis=dict(type='InstanceDiscriminationLoss', num_samples=20),
        loss_sem=dict(type='SemanticLoss', num_samples=20),
        loss_stage_sem=dict(type='BinarySemanticLoss'),
        reclass=dict(type='ReClass')).train()
    with no_host_copies(allowed=1):
        criterion(predictions, targets, torch.randn(2, 4, 5, 5))


def test_forward__wrong_inputs():
    predictions, targets = _stages(), random_targets(size=9)
    sem_logits = torch.randn(2, 4, 9, 9)
    with pytest.raises(ValueError, match=r'resolution of the final masks, \(9, 9\), but got \(5, 5\)'):
        _criterion()(predictions, random_targets(size=5))
    with pytest.raises(ValueError, match='auxiliary semantic head together, but the logits are missing'):
        _criterion(loss_sem=dict(type='SemanticLoss'))(predictions, targets)
    with pytest.raises(ValueError, match='auxiliary semantic head together, but `loss_sem` is missing'):
        _criterion()(predictions, targets, sem_logits)
    with pytest.raises(ValueError, match='decoder stages together, but the logits are missing'):
        _criterion(loss_stage_sem=dict(type='SemanticLoss'))(predictions, targets)

    with_stage = [predictions[0]._replace(sem_logits=sem_logits[..., :3, :3]), *predictions[1:]]
    with pytest.raises(ValueError, match='decoder stages together, but `loss_stage_sem` is missing'):
        _criterion()(with_stage, targets)
    with pytest.raises(ValueError, match='decoder stages together, but `loss_stage_sem` is missing'):
        _criterion()([predictions[-1]._replace(sem_logits=sem_logits)], targets)


def test_forward__semantic_head_of_the_final_output():
    prediction, targets = random_prediction(), random_targets()
    sem_logits = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    auxiliary = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    criterion = _criterion(
        loss_sem=dict(type='SemanticLoss'), loss_stage_sem=dict(type='SemanticLoss', loss_weight=0.5))
    losses = criterion([prediction._replace(sem_logits=sem_logits)], targets, auxiliary)
    slot_targets = random_slot_targets(prediction, targets)
    torch.testing.assert_close(losses['loss_stage_sem'], 0.5 * SemanticLoss()(sem_logits, slot_targets))
    torch.testing.assert_close(losses['loss_sem'], SemanticLoss()(auxiliary, slot_targets))


def test_init__unknown_key():
    with pytest.raises(TypeError):
        _criterion(loss_semantic=dict(type='SemanticLoss'))
