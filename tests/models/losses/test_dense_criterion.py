"""The dense criterion of the tests against the public kMaX-DeepLab code, also where segments overlap."""
import pytest
import torch

from tests.dense_criterion import DenseCriterion
from tests.loss_reference import (CASES, OVERLAPPING, load_dense_targets, load_inputs, load_outputs,
                                  to_predictions)
from tests.models.losses.test_panoptic_criterion import feed_samples, names_of_reference, reference_criterion


@pytest.mark.parametrize('case', [*CASES, OVERLAPPING])
def test_dense_forward__reference(reference_dir, case):
    inputs = load_inputs(reference_dir, torch.float64)
    criterion = reference_criterion(case)
    feed_samples(criterion, reference_dir, case)
    targets = load_dense_targets(reference_dir, case, torch.float64)
    sem_logits = inputs['semantic_pred_low_res' if 'low_res' in case else 'final_aux_semantic_pred']
    losses = DenseCriterion(criterion).dense_forward(to_predictions(inputs), targets, sem_logits)

    expected = load_outputs(reference_dir, case)
    assert len(losses) == len(expected['losses_float64'])
    for name, loss in losses.items():
        theirs, weight = names_of_reference(name)
        assert loss.item() / weight == pytest.approx(expected['losses_float64'][theirs], rel=1e-13), name

    sum(losses.values()).backward()
    for name, norm in expected['grad_norms']['total_weighted'].items():
        if 'low_res' in case and name == 'final_aux_semantic_pred':
            name = 'semantic_pred_low_res'
        assert inputs[name].grad.norm().item() == pytest.approx(norm, rel=1e-6), name  # theirs are float32
