"""Comparison of the losses with those of another version of the package."""
import statistics
import subprocess

import pytest
import torch
from torch import nn

from remax_mm.analysis import criterion_cost
from remax_mm.analysis.criterion_cost import CriterionCost, CriterionSettings, PartCost, measure_criterion
from remax_mm.analysis.step_cost import KeptMemory, StepsCost
from remax_mm.analysis.version_comparison import (REPOSITORY, checked_out, format_comparison,
                                                  format_kept_memory, format_steps, run_version, summarize,
                                                  summarize_steps)

YARDSTICK = '55d733f'
TINY = CriterionSettings(
    relaxed=True, num_segments=5, side=9, num_slots=8, num_classes=6, embedding_channels=4)


def _has_commit(commit: str) -> bool:
    command = ['git', '-C', str(REPOSITORY), 'cat-file', '-e', commit + '^{commit}']
    return subprocess.run(command, capture_output=True).returncode == 0


def _cost(seconds: float, peak_memory: int, loss: float) -> CriterionCost:
    return CriterionCost(dict(criterion=PartCost(seconds, peak_memory)), dict(loss_cls=loss, loss_dice=2.))


def test_summarize__by_hand():
    old = [_cost(2., 400, 1.), _cost(4., 400, 1.), _cost(1., 400, 1.)]
    new = [_cost(1., 100, 1.5), _cost(1., 100, 1.5), _cost(3., 100, 1.5)]
    comparison = summarize(old, new)
    assert comparison.parts == dict(criterion=(PartCost(1., 100), 0.5, 0.25))
    assert comparison.loss_difference == 0.5
    line = format_comparison(dict(tiny=comparison)).splitlines()[-1]
    assert line == '| tiny | criterion | 1000.0 | 0.50 | 0.0 | 0.25 |'
    with pytest.raises(ValueError, match=r"losses \['loss_cls', 'loss_dice'\], but got \['loss_cls'\]"):
        summarize(old, [CriterionCost(new[0].parts, dict(loss_cls=1.))])


def test_summarize_steps__by_hand():
    old = [StepsCost([2., 4., 3.], 400, dict(head=30), [dict(a=1., b=2.)]), StepsCost([2.], 400, {}, [])]
    new = [
        StepsCost([1., 1., 9.], 100, dict(head=10, neck=5), [dict(a=1., c=7.)]),
        StepsCost([1.], 100, {}, [])
    ]
    new[0].losses[0]['b'] = 2.5
    comparison = summarize_steps(old, new)
    assert comparison.time == statistics.median([1 / 3, 1 / 2]) and comparison.memory == 0.25
    assert comparison.loss_difference == 0.25
    assert comparison.new.seconds == [1., 1., 9., 1.] and comparison.old.seconds == [2., 4., 3., 2.]
    assert format_steps(
        dict(tiny=comparison)).splitlines()[-1] == '| tiny | 1.000 | 0.42 | 0 | 0.25 | 2.5e-01 |'
    kept = [line.split('|')[1].strip() for line in format_kept_memory(comparison).splitlines()[2:]]
    assert kept == ['head', 'neck', 'all']


def test_kept_memory__by_the_module_that_created_it():
    model = nn.Sequential()
    model.add_module('first', nn.Linear(4, 8))
    model.add_module('second', nn.Sequential(nn.Linear(8, 2), nn.Sigmoid()))
    x = torch.zeros(3, 4)
    with KeptMemory(model) as kept:
        out = 2 * model(x)
        by_module = kept.by_module()
    # The second module keeps the output of its sigmoid, and of its linear layer nothing.
    assert by_module == {'first': 4 * 3 * 8, 'second.1': 4 * 3 * 2, 'model': 4 * out.numel()}


def test_measure_criterion__parts_and_losses():
    cost = measure_criterion(TINY, repeats=1)
    assert list(cost.parts) == [
        'criterion', 'targets', 'matching', 'loss_cls', 'loss_mask_id', 'loss_dice', 'loss_insdis', 'reclass'
    ]
    assert all(part.seconds > 0 and part.peak_memory > 0 for part in cost.parts.values())
    assert len(cost.losses) == 7 * 4 + 1 + 4  # of seven outputs, the auxiliary head and four stage heads
    assert cost.losses == measure_criterion(TINY, repeats=1).losses


def test_checked_out__unknown_commit():
    with pytest.raises(ValueError, match="Expected a commit .*, but got 'no-such-commit'"):
        with checked_out('no-such-commit'):
            pass


@pytest.mark.slow
def test_run_version__losses_of_the_yardstick(tmp_path):
    if not _has_commit(YARDSTICK):
        pytest.skip(f'the repository has no commit {YARDSTICK}')
    options = dict(settings=TINY._asdict(), repeats=1, threads=1)
    with checked_out(YARDSTICK) as tree:
        old = run_version(tree, criterion_cost, options)
        with pytest.raises(RuntimeError, match='Expected remax_mm.analysis.criterion_cost to run with'):
            run_version(tree, criterion_cost, dict(options, settings=dict(side=-1)))
    assert not tree.exists()
    losses = [result['losses'] for result in (old, run_version(REPOSITORY, criterion_cost, options))]
    comparison = summarize(*([CriterionCost({}, values)] for values in losses))
    assert comparison.loss_difference < 1e-6
