import math

import pytest
import torch

from remax_mm.analysis import fusion_worker
from remax_mm.analysis.fusion_cost import (FusionComparison, FusionCost, compare_results,
                                           format_fusion_comparisons, measure_fusion)


@pytest.mark.parametrize('task', fusion_worker.TASKS)
def test_measure__results_of_the_task(task, tmp_path, monkeypatch):
    monkeypatch.setattr(fusion_worker, 'BALLAST', 1)
    request = fusion_worker.Request(
        task, side=65, num_slots=24, repeats=2, results=str(tmp_path / 'results.pt'))
    answer = fusion_worker.measure(request)
    assert len(answer['seconds']) == 2 and min(answer['seconds']) > 0 and answer['peak_memory'] >= 0
    results = torch.load(request.results, weights_only=True)
    assert results['maps'].shape[-2:] == (65, 65) and len(results['maps'].unique()) > 1
    assert len(results['scores']) == {
        'semantic': 0,
        'instances': len(results['maps'])
    }.get(task,
          len(results['maps'].unique()) - 1)


def test_draw_logits__twenty_confident_slots():
    class_logits, mask_logits = fusion_worker.draw_logits(129, 30)
    assert class_logits.shape == (1, 30, 134) and mask_logits.shape == (1, 30, 33, 33)
    assert int((class_logits[0].softmax(-1)[:, :-1].amax(1) > 0.7).sum()) == 20
    again = fusion_worker.draw_logits(129, 30)
    assert torch.equal(again[0], class_logits) and torch.equal(again[1], mask_logits)


def test_compare_results__pixels_and_scores():
    old = dict(maps=torch.tensor([[1, 2], [3, 4]]), scores=torch.tensor([0.5, 0.25]))
    assert compare_results(old, old) == (1.0, 0.0)
    new = dict(maps=torch.tensor([[1, 2], [0, 4]]), scores=torch.tensor([0.5, 0.75]))
    assert compare_results(old, new) == (0.75, 0.5)
    fewer = dict(maps=old['maps'], scores=old['scores'][:1])
    assert compare_results(old, fewer)[0] == 1.0 and math.isnan(compare_results(old, fewer)[1])
    other_size = dict(maps=torch.zeros(3, 3), scores=old['scores'])
    assert compare_results(old, other_size)[0] == 0.0


def test_format_fusion_comparisons__ratios():
    comparison = FusionComparison(
        FusionCost([3.0, 1.0, 2.0], 400 * 2**20), FusionCost([0.5, 0.4, 9.0], 100 * 2**20), 1.0, 1.2e-7)
    assert comparison.time_ratio == 0.25 and comparison.memory_ratio == 0.25
    row = format_fusion_comparisons({(641, 'panoptic'): comparison}).splitlines()[-1]
    assert row == ('| 641 | panoptic | 0.250 | 0.250 | 2.000 to 0.500 | 400 to 100 | 100.0000 % | 1.2e-07 |')


def test_measure_fusion__error_of_the_worker(tmp_path):
    (tmp_path / 'remax_mm.py').write_text('raise ImportError("not a package")')
    with pytest.raises(RuntimeError, match='(?s)fusion_worker to run with .*, but got.*not a package'):
        measure_fusion(tmp_path, 'panoptic', 33, 4, 1, tmp_path / 'results.pt')
