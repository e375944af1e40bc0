"""Cost of training relative to that of an older version of the package, measured in turns."""
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence

from . import criterion_cost, step_cost
from .criterion_cost import CriterionCost, CriterionSettings, PartCost
from .step_cost import StepsCost, StepSettings

REPOSITORY = Path(__file__).resolve().parents[2]


class Ratio(NamedTuple):
    """Cost of a part in this version, and relative to the older one: medians over the rounds."""
    cost: PartCost
    time: float
    memory: float


class VersionComparison(NamedTuple):
    """Ratios by part, and the largest relative difference of a loss."""
    parts: Dict[str, Ratio]
    loss_difference: float


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Folder with the files of a commit of this repository, a git worktree that is removed at the end.

    Raises:
        ValueError: Git cannot check the commit out.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / 'remax_mm'
        added = _git('worktree', 'add', '--detach', str(tree), commit)
        if added.returncode != 0:
            raise ValueError(f'Expected a commit of the git repository {REPOSITORY}, but got {commit!r}: '
                             f'{added.stderr.strip()}')
        try:
            yield tree
        finally:
            _git('worktree', 'remove', '--force', str(tree))


def _git(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(['git', '-C', str(REPOSITORY), *arguments], capture_output=True, text=True)


def compare_criteria(old_tree: Path,
                     settings: CriterionSettings,
                     rounds: int = 5,
                     repeats: int = 3,
                     threads: int = 1) -> VersionComparison:
    """Compare the losses of this version with those of another one, each in processes of its own.

    Args:
        old_tree: Folder of the other version, see :func:`checked_out`.
        settings: Sizes.
        rounds: Number of processes of each version, which run in turns.
        repeats: Number of measurements in a process, of which the fastest counts.
        threads: Number of CPU threads.
    """
    options = dict(settings=settings._asdict(), repeats=repeats, threads=threads)

    def measure(tree: Path) -> CriterionCost:
        result = run_version(tree, criterion_cost, options)
        parts = {name: PartCost(*cost) for name, cost in result['parts'].items()}
        return CriterionCost(parts, result['losses'])

    pairs = [(measure(old_tree), measure(REPOSITORY)) for _ in range(rounds)]
    return summarize([old for old, _ in pairs], [new for _, new in pairs])


def run_version(tree: Path, script: ModuleType, options: Mapping[str, Any]) -> Dict[str, Any]:
    """What a script of this version prints as JSON when it runs with the package of another folder.

    Raises:
        RuntimeError: The process failed, or it imported another version.
    """
    command = [sys.executable, str(script.__file__), json.dumps(options)]
    environment = dict(os.environ, PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE='1')
    process = subprocess.run(command, env=environment, cwd=tree, capture_output=True, text=True)
    if process.returncode != 0:
        raise RuntimeError(f'Expected {script.__name__} to run with {tree}, but got\n{process.stderr}')
    result = json.loads(process.stdout.splitlines()[-1])
    if tree.resolve() not in Path(result['package']).resolve().parents:
        raise RuntimeError(f'Expected the package of {tree}, but {result["package"]} was imported')
    return result


class StepComparison(NamedTuple):
    """Training steps of this version relative to the older one, or to those of another config.

    Attributes:
        new, old: Costs; the seconds are those of all rounds.
        time: Median over the rounds of the ratios of the median times.
        loss_difference: Largest relative difference of a loss, in any step; NaN for another model.
    """
    new: StepsCost
    old: StepsCost
    time: float
    loss_difference: float

    @property
    def memory(self) -> float:
        return self.new.peak_memory / self.old.peak_memory


def compare_steps(old_tree: Path,
                  new: StepSettings,
                  old: StepSettings,
                  num_steps: int = 3,
                  rounds: int = 3,
                  threads: int = 1) -> StepComparison:
    """Compare training steps of this version with those of another one, each in processes of its own.

    Args:
        old_tree: Folder of the other version, see :func:`checked_out`. It may be this one.
        new, old: What is trained. The options may differ, and within this version the models.
        num_steps: Number of steps in a process.
        rounds: Number of processes of each version, which run in turns.
        threads: Number of CPU threads.
    """

    def measure(tree: Path, settings: StepSettings) -> StepsCost:
        options = dict(settings=settings._asdict(), num_steps=num_steps, threads=threads)
        result = run_version(tree, step_cost, options)
        return StepsCost(**{name: result[name] for name in StepsCost._fields})

    pairs = [(measure(old_tree, old), measure(REPOSITORY, new)) for _ in range(rounds)]
    comparison = summarize_steps([cost for cost, _ in pairs], [cost for _, cost in pairs])
    return comparison if new.config == old.config else comparison._replace(loss_difference=math.nan)


def summarize_steps(old: Sequence[StepsCost], new: Sequence[StepsCost]) -> StepComparison:
    """Combine the rounds of two versions."""
    ratios = [statistics.median(b.seconds) / statistics.median(a.seconds) for a, b in zip(old, new)]
    differences = [
        abs(after[name] / before[name] - 1) for before, after in zip(old[0].losses, new[0].losses)
        for name in before.keys() & after.keys()
    ]
    all_new, all_old = ([second for cost in costs for second in cost.seconds] for costs in (new, old))
    return StepComparison(new[0]._replace(seconds=all_new), old[0]._replace(seconds=all_old),
                          statistics.median(ratios), max(differences))


def summarize(old: Sequence[CriterionCost], new: Sequence[CriterionCost]) -> VersionComparison:
    """Medians of the ratios of each round.

    Raises:
        ValueError: The versions have other losses.
    """
    if old[0].losses.keys() != new[0].losses.keys():
        raise ValueError(f'Expected the losses {sorted(old[0].losses)}, but got {sorted(new[0].losses)}')
    difference = max(abs(new[0].losses[name] / loss - 1) for name, loss in old[0].losses.items())
    ratios = {}
    for name in new[0].parts:
        before, after = ([cost.parts[name] for cost in costs] for costs in (old, new))
        ratios[name] = Ratio(
            PartCost(statistics.median(cost.seconds for cost in after), after[0].peak_memory),
            statistics.median(b.seconds / a.seconds for a, b in zip(before, after)),
            after[0].peak_memory / before[0].peak_memory)
    return VersionComparison(ratios, difference)


def format_comparison(comparisons: Mapping[str, VersionComparison]) -> str:
    """Markdown table of every part of every case."""
    lines: List[str] = ['| case | part | ms | relative | MiB | relative |', '|---|---|---:|---:|---:|---:|']
    for case, comparison in comparisons.items():
        for name, (cost, time, memory) in comparison.parts.items():
            lines.append(f'| {case} | {name} | {1e3 * cost.seconds:.1f} | {time:.2f} | '
                         f'{cost.peak_memory / 2**20:.1f} | {memory:.2f} |')
    return '\n'.join(lines)


def format_steps(comparisons: Mapping[str, StepComparison]) -> str:
    """Markdown table of all cases."""
    lines = ['| case | s | relative | MiB | relative | loss difference |', '|---|---:|---:|---:|---:|---:|']
    for case, comparison in comparisons.items():
        lines.append(f'| {case} | {statistics.median(comparison.new.seconds):.3f} | {comparison.time:.2f} | '
                     f'{comparison.new.peak_memory / 2**20:.0f} | {comparison.memory:.2f} | '
                     f'{comparison.loss_difference:.1e} |')
    return '\n'.join(lines)


def format_kept_memory(comparison: StepComparison) -> str:
    """Markdown table of the memory that each module keeps for the backward pass."""
    lines = ['| module | MiB | before |', '|---|---:|---:|']
    new, old = comparison.new.kept_memory, comparison.old.kept_memory
    for name in sorted({*new, *old}, key=lambda name: -old.get(name, 0)):
        lines.append(f'| {name} | {new.get(name, 0) / 2**20:.1f} | {old.get(name, 0) / 2**20:.1f} |')
    lines.append(f'| all | {sum(new.values()) / 2**20:.1f} | {sum(old.values()) / 2**20:.1f} |')
    return '\n'.join(lines)
