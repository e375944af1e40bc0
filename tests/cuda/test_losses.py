"""The losses on a GPU are those on the CPU, and so are their gradients."""
import copy
from typing import Any, Dict, List, NamedTuple, Tuple

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor

from remax_mm.structures import MaskPrediction, PanopticTargets
from tests.cuda.models import HEADS, MMDET_HEADS, assert_all_close, build_model, training_step
from tests.worked_example import random_prediction, random_targets

NUM_CLASSES = 4  # of the random predictions
SIZES = (3, 5, 9)
REMAX = dict(
    loss_mask_id=dict(type='SigmoidMaskIDLoss'),
    loss_stage_sem=dict(type='SemanticLoss', loss_weight=0.5),
    reclass=dict(type='ReClass'))
CRITERIA: Dict[str, dict] = dict(
    kmax=dict(),
    remax=REMAX,
    max_deeplab=dict(loss_insdis=dict(type='MeanEmbeddingDiscriminationLoss', num_things_classes=2)),
    sigmoid_masks=dict(loss_dice=dict(type='PQMaskLoss', activation='sigmoid')),
    matched_slots={
        **REMAX, 'loss_mask_id': dict(type='SigmoidMaskIDLoss', slot_reduction='matched')
    },
    mean_over_slots={
        **REMAX, 'loss_mask_id': dict(type='SigmoidMaskIDLoss', slot_reduction='mean')
    },
    gradient_of_tensorflow={
        **REMAX, 'loss_cls': dict(type='PQClassLoss', tf_gradient=True)
    },
    separate_matching={
        **REMAX, 'share_final_matching': False
    },
    binary_semantics={
        **REMAX, 'loss_stage_sem': dict(type='BinarySemanticLoss')
    },
    upsampled_semantics={
        **REMAX, 'loss_stage_sem': dict(type='UpsampledSemanticLoss')
    })


class Inputs(NamedTuple):
    """Arguments of the criterion."""
    predictions: List[MaskPrediction]
    targets: PanopticTargets
    sem_logits: Tensor


def _draw_inputs(relaxed: bool, dtype: torch.dtype) -> Inputs:
    predictions = [random_prediction(size=size, dtype=dtype) for size in SIZES]
    if relaxed:
        size = predictions[0].mask_logits.shape[-2:]
        predictions[0] = predictions[0]._replace(
            relaxed_mask_logits=3 * predictions[0].mask_logits,
            sem_logits=torch.randn(2, NUM_CLASSES, *size, dtype=dtype))
    targets = random_targets(size=SIZES[-1])
    return Inputs(predictions, targets, torch.randn(2, NUM_CLASSES, 5, 5, dtype=dtype))


def _leaf(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.detach().to(device, copy=True).requires_grad_()


def _run_criterion(options: Dict[str, Any], inputs: Inputs,
                   device: torch.device) -> Tuple[Dict[str, Tensor], Dict[str, Tensor]]:
    """Losses, and gradients of their sum by the names of the inputs."""
    config: Dict[str, Any] = dict(
        type='PanopticCriterion',
        assigner=dict(type='PQSimilarityAssigner'),
        loss_cls=dict(type='PQClassLoss'),
        loss_dice=dict(type='PQMaskLoss'),
        loss_mask_id=dict(type='SoftmaxMaskIDLoss'),
        loss_insdis=dict(type='InstanceDiscriminationLoss', num_samples=0),
        loss_sem=dict(type='SemanticLoss'))
    criterion = MODELS.build({**config, **options}).train().to(device)
    predictions = [
        MaskPrediction(*(None if part is None else _leaf(part, device) for part in prediction))
        for prediction in inputs.predictions
    ]
    targets = PanopticTargets(*(part.to(device) for part in inputs.targets))
    sem_logits = _leaf(inputs.sem_logits, device)

    losses = criterion(predictions, targets, sem_logits)
    sum(losses.values()).backward()
    gradients = {
        f'{stage}.{name}': part.grad
        for stage, prediction in enumerate(predictions)
        for name, part in prediction._asdict().items() if part is not None and part.grad is not None
    }
    return losses, {**gradients, 'sem_logits': sem_logits.grad}


@pytest.mark.parametrize('dtype, rtol', [(torch.float32, 1e-5), (torch.float64, 1e-11)])
@pytest.mark.parametrize('case', CRITERIA)
def test_criterion__losses_and_gradients_of_the_cpu(case, dtype, rtol, device):
    options = CRITERIA[case]
    inputs = _draw_inputs('loss_stage_sem' in options, dtype)
    expected, expected_gradients = _run_criterion(options, inputs, torch.device('cpu'))
    losses, gradients = _run_criterion(options, inputs, device)
    assert all(loss.device.type == device.type and loss.dtype == dtype for loss in losses.values())
    assert all(expected.values())  # no loss is zero
    assert_all_close(losses, expected, rtol, 0)
    assert_all_close(gradients, expected_gradients, 10 * rtol, rtol)


@pytest.mark.parametrize('head', HEADS)
def test_model__losses_and_gradients_of_the_cpu(head, device, monkeypatch):
    """A whole training step, in float64; mmdet's heads run in float32 only."""
    rand = torch.rand
    monkeypatch.setattr(
        torch, 'rand', lambda *size, device='cpu', **options: rand(*size, **options).to(device))
    model, rtol = build_model(head), 1e-4
    if head not in MMDET_HEADS:
        model, rtol = model.double(), 1e-9
    on_device = copy.deepcopy(model).to(device)
    expected, found = training_step(model), training_step(on_device)
    assert all(loss.device.type == device.type for loss in found.losses.values())
    assert_all_close(found.losses, expected.losses, rtol, 0)
    assert_all_close(found.gradients, expected.gradients, 10 * rtol, rtol)
    assert_all_close(found.statistics, expected.statistics, rtol, rtol)
