"""The dense criterion of the tests equals the public kMaX-DeepLab code, and this package in training."""
import copy
from pathlib import Path
from typing import Dict, List

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from remax_mm.datasets.mini_panoptic import write_mini_panoptic
from tests.conftest import REPOSITORY
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


def _losses_of_training(config: Config, batches: List[dict], dense: bool) -> List[Dict[str, float]]:
    """Losses of 20 steps in float64: in float32, rounding errors grow a thousandfold within a few steps."""
    torch.manual_seed(0)
    model = MODELS.build(config.model).double().train()
    head = model.panoptic_head
    if dense:
        head.criterion = DenseCriterion(head.criterion)
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    losses = []
    for step in range(20):
        data = model.data_preprocessor(copy.deepcopy(batches[step % len(batches)]), training=True)
        torch.manual_seed(step)  # for dropped paths and sampled pixels
        total, terms = model.parse_losses(model.loss(data['inputs'].double(), data['data_samples']))
        optimizer.update_params(total)
        losses.append({name: term.item() for name, term in terms.items()})
    return losses


@pytest.mark.slow
@pytest.mark.parametrize('name', ['kmax_mnv3-s_1xb8-1k_mini-129', 'remax_mnv3-s_1xb8-1k_mini-129'])
def test_training__20_steps_as_with_the_dense_criterion(name: str, tmp_path: Path):
    write_mini_panoptic(tmp_path / 'data', 8, 2, 129, 0)
    config = Config.fromfile(REPOSITORY / 'configs' / 'mini' / f'{name}.py')
    loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
    loader['dataset'] = dict(data_root=str(tmp_path / 'data'))
    config.merge_from_dict(dict(train_dataloader=loader))
    with DefaultScope.overwrite_default_scope('mmdet'):
        loader = iter(Runner.build_dataloader(config.train_dataloader, seed=0))
        batches = [next(loader) for _ in range(4)]
        found, expected = (_losses_of_training(config, batches, dense) for dense in (False, True))
    for losses, dense_losses in zip(found, expected):
        assert losses == pytest.approx(dense_losses, rel=1e-4)
    assert expected[-1]['loss'] < 0.95 * expected[0]['loss']
