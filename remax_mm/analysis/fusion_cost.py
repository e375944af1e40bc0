"""CPU time and memory of mask fusion in this package, relative to an older commit of it."""
import statistics
import tempfile
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

import torch

from . import fusion_worker
from .version_comparison import REPOSITORY, run_version


class FusionCost(NamedTuple):
    """CPU seconds of each call, and growth of the largest resident set in bytes."""
    seconds: List[float]
    peak_memory: int


class FusionComparison(NamedTuple):
    """Two commits of the package.

    Attributes:
        old, new: costs, from several processes.
        equal_pixels: fraction of the pixels of the maps, or of the masks of instances, that are equal.
        score_difference: largest absolute difference of two scores; NaN if their numbers differ.
    """
    old: FusionCost
    new: FusionCost
    equal_pixels: float
    score_difference: float

    @property
    def time_ratio(self) -> float:
        """New over old, of the medians."""
        return statistics.median(self.new.seconds) / statistics.median(self.old.seconds)

    @property
    def memory_ratio(self) -> float:
        """New over old."""
        return self.new.peak_memory / self.old.peak_memory


def measure_fusion(root: Path, task: str, side: int, num_slots: int, repeats: int,
                   results: Path) -> FusionCost:
    """Run a worker with the package in ``root``; see :class:`fusion_worker.Request` for the others.

    Raises:
        RuntimeError: the worker failed, or imported another version.
    """
    request = fusion_worker.Request(task, side, num_slots, repeats, str(results))
    cost = run_version(root, fusion_worker, request._asdict())
    return FusionCost(cost['seconds'], cost['peak_memory'])


def compare_fusion(old_root: Path,
                   task: str,
                   side: int,
                   num_slots: int = 128,
                   rounds: int = 3,
                   repeats: int = 3) -> FusionComparison:
    """Measure two commits in turns, with a new process for each measurement.

    Args:
        old_root: folder with the files of the old commit; the new one is this package.
        rounds: number of processes of each.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f'{name}.pt' for name in ('old', 'new')}
        costs: Dict[str, List[FusionCost]] = dict(old=[], new=[])
        for _ in range(rounds):
            for name, root in (('old', old_root), ('new', REPOSITORY)):
                costs[name].append(measure_fusion(root, task, side, num_slots, repeats, paths[name]))
        results = [torch.load(paths[name], weights_only=True) for name in ('old', 'new')]
    old, new = (
        FusionCost([seconds for cost in costs[name] for seconds in cost.seconds],
                   min(cost.peak_memory for cost in costs[name])) for name in ('old', 'new'))
    return FusionComparison(old, new, *compare_results(*results))


def compare_results(old: Dict[str, torch.Tensor], new: Dict[str, torch.Tensor]) -> Tuple[float, float]:
    """Fraction of equal pixels, and the largest difference of scores, NaN if their numbers differ."""
    if old['maps'].shape != new['maps'].shape:
        return 0.0, float('nan')
    equal_pixels = (old['maps'] == new['maps']).double().mean().item() if old['maps'].numel() else 1.0
    if old['scores'].shape != new['scores'].shape:
        return equal_pixels, float('nan')
    differences = (old['scores'].double() - new['scores'].double()).abs()
    return equal_pixels, differences.max().item() if len(differences) else 0.0


def format_fusion_comparisons(comparisons: Dict[Tuple[int, str], FusionComparison]) -> str:
    """A Markdown table.

    Args:
        comparisons: by side and task.
    """
    rows = [('size', 'task', 'time', 'memory', 'CPU seconds', 'MiB', 'equal pixels', 'score difference'),
            ('---', ) * 8]
    for (side, task), comparison in comparisons.items():
        old, new = comparison.old, comparison.new
        rows.append((str(side), task, f'{comparison.time_ratio:.3f}', f'{comparison.memory_ratio:.3f}',
                     f'{statistics.median(old.seconds):.3f} to {statistics.median(new.seconds):.3f}',
                     f'{old.peak_memory / 2**20:.0f} to {new.peak_memory / 2**20:.0f}',
                     f'{100 * comparison.equal_pixels:.4f} %', f'{comparison.score_difference:.1e}'))
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)
