"""Comparison of the losses with those of another version of the package."""
import subprocess

import pytest

from remax_mm.analysis.criterion_cost import CriterionCost, CriterionSettings, PartCost, measure_criterion
from remax_mm.analysis.version_comparison import (REPOSITORY, checked_out, format_comparison, run_version,
                                                  summarize)

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
        old = run_version(tree, options)
        with pytest.raises(RuntimeError, match='Expected the losses of'):
            run_version(tree, dict(options, settings=dict(side=-1)))
    assert not tree.exists()
    assert summarize([old], [run_version(REPOSITORY, options)]).loss_difference < 1e-6
