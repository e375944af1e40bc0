"""Cost of the losses relative to that of an older version of the package, measured in turns."""
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence

from . import criterion_cost
from .criterion_cost import CriterionCost, CriterionSettings, PartCost

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
    pairs = [(run_version(old_tree, options), run_version(REPOSITORY, options)) for _ in range(rounds)]
    return summarize([old for old, _ in pairs], [new for _, new in pairs])


def run_version(tree: Path, options: Mapping[str, Any]) -> CriterionCost:
    """Costs in the version of a folder.

    Raises:
        RuntimeError: The process failed, or it imported another version.
    """
    command = [sys.executable, str(Path(criterion_cost.__file__)), json.dumps(options)]
    environment = dict(os.environ, PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE='1')
    process = subprocess.run(command, env=environment, cwd=tree, capture_output=True, text=True)
    if process.returncode != 0:
        raise RuntimeError(f'Expected the losses of {tree} to run, but got\n{process.stderr}')
    result = json.loads(process.stdout.splitlines()[-1])
    if tree.resolve() not in Path(result['package']).resolve().parents:
        raise RuntimeError(f'Expected the package of {tree}, but {result["package"]} was imported')
    return CriterionCost({name: PartCost(*cost) for name, cost in result['parts'].items()}, result['losses'])


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
