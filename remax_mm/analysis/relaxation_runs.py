"""Trainings of a model with one relaxation more each, several times with different seeds."""
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from mmengine.fileio import dump, load

from .comparison import Metrics, compare_runs, format_comparison, read_final_metrics


class Variant(NamedTuple):
    """Name in the table, config below ``configs/mini``, and overrides of the config."""
    title: str
    config: str
    options: Tuple[str, ...] = ()


class Family(NamedTuple):
    """Variants by the names of their folders, each with one change more than the one before, and a recipe."""
    variants: Dict[str, Variant]
    iterations: int
    lr: float


def _mmdet_family(name: str, title: str) -> Family:
    plain, relaxed = (f'{model}_r18_1xb8-600_mini-129.py' for model in (name, f'remax-{name}'))
    return Family({
        name: Variant(title, plain),
        f'{name}-remask': Variant(f'{title} + ReMask', relaxed, ('model.panoptic_head.reclass=None', )),
        f'{name}-remask-reclass': Variant(f'{title} + ReMask + ReClass', relaxed),
    }, iterations=600, lr=1e-3)  # yapf: disable


FAMILIES = {
    'kmax':
    Family({
        'kmax': Variant('kMaX (softmax)', 'kmax_mnv3-s_1xb8-1k_mini-129.py'),
        'sigmoid': Variant('sigmoid', 'kmax-sigmoid_mnv3-s_1xb8-1k_mini-129.py'),
        'sigmoid-remask': Variant('sigmoid + ReMask', 'kmax-sigmoid-remask_mnv3-s_1xb8-1k_mini-129.py'),
        'sigmoid-remask-reclass': Variant('sigmoid + ReMask + ReClass', 'remax_mnv3-s_1xb8-1k_mini-129.py'),
    }, iterations=1000, lr=4e-3),
    'mask2former': _mmdet_family('mask2former', 'Mask2Former'),
    'maskformer': _mmdet_family('maskformer', 'MaskFormer'),
}  # yapf: disable


class Plan(NamedTuple):
    """Settings of a comparison.

    Attributes:
        family: Key of :data:`FAMILIES`.
        variants: Names of variants of the family.
        seeds: Number of runs of each variant.
        iterations: Iterations of each run.
        lr: Learning rate.
        options: Overrides for all configs, as for ``--cfg-options`` of tools/train.py.
    """
    family: str
    variants: Sequence[str]
    seeds: int
    iterations: int
    lr: float
    options: Sequence[str] = ()


class Run(NamedTuple):
    """One training: title and name of its variant, its seed, config, overrides of the config, and folder."""
    title: str
    variant: str
    seed: int
    config: Path
    options: List[str]
    folder: Path

    @property
    def settings(self) -> dict:
        """What identifies the result of the run."""
        return dict(config=self.config.name, options=self.options)


class Outcome(NamedTuple):
    """Metrics of a run that was trained, or None and the last line of its log if it failed."""
    run: Run
    metrics: Optional[Metrics]
    error: str = ''


def plan_runs(plan: Plan, configs: Path, work_dir: Path) -> List[Run]:
    """All runs, seed by seed, so that an interrupted comparison has the same seeds of each variant.

    Args:
        plan: The comparison.
        configs: Folder ``configs/mini`` of this project.
        work_dir: Folder of the comparison.
    """
    iterations = plan.iterations
    schedule = [
        f'optim_wrapper.optimizer.lr={plan.lr}', f'train_cfg.max_iters={iterations}',
        f'train_cfg.val_interval={iterations}', f'param_scheduler.0.end={max(iterations // 10, 2)}',
        f'param_scheduler.1.milestones=[{iterations * 85 // 100},{iterations * 95 // 100}]'
    ]
    variants = {name: FAMILIES[plan.family].variants[name] for name in plan.variants}
    return [
        Run(variant.title, name, seed, configs / variant.config,
            [f'randomness.seed={seed}', *schedule, *variant.options, *plan.options],
            work_dir / name / f'seed{seed}') for seed in range(plan.seeds)
        for name, variant in variants.items()
    ]


def read_finished(run: Run) -> Optional[Metrics]:
    """Metrics of a finished run, None if it is not finished.

    Raises:
        ValueError: the folder has a run with other settings.
    """
    path = run.folder / 'metrics.json'
    if not path.is_file():
        return None
    finished = load(path)
    if finished['settings'] != run.settings:
        raise ValueError(f'Expected a run of {run.settings} in {run.folder}, but it is one of '
                         f'{finished["settings"]}; choose another --work-dir')
    return finished['metrics']


def train_runs(runs: Sequence[Run], iterations: int, trainer: Path, jobs: int = 1) -> Iterator[Outcome]:
    """Train, and give each run as soon as it is done.

    Args:
        runs: Runs to train.
        iterations: Iterations of each run.
        trainer: Script tools/train.py.
        jobs: Number of runs at the same time; they share the CPU cores.
    """
    # One thread waits for each process.
    with ThreadPoolExecutor(jobs) as pool:
        for future in as_completed([pool.submit(_train, run, iterations, trainer, jobs) for run in runs]):
            yield future.result()


def _train(run: Run, iterations: int, trainer: Path, jobs: int) -> Outcome:
    run.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(trainer), str(run.config), '--work-dir', str(run.folder)]
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault('OMP_NUM_THREADS', str(max((os.cpu_count() or 1) // jobs, 1)))
    log = run.folder / 'train.log'
    with open(log, 'w') as file:
        done = subprocess.run([*command, '--cfg-options', *run.options],
                              stdout=file,
                              stderr=subprocess.STDOUT,
                              env=environment)
    if done.returncode != 0:
        last = log.read_text(errors='replace').strip().splitlines()[-1:]
        return Outcome(run, None, f'{"".join(last)} (see {log})')
    metrics = read_final_metrics(run.folder, iterations)
    dump(dict(settings=run.settings, metrics=metrics), run.folder / 'metrics.json', indent=2)
    return Outcome(run, metrics)


def write_comparison(plan: Plan, outcomes: Sequence[Outcome], work_dir: Path) -> str:
    """Write comparison.md and comparison.json; failed runs are left out.

    Args:
        plan: The comparison.
        outcomes: All runs of the plan, in its order.
        work_dir: Folder of the files.

    Returns:
        The table of comparison.md.
    """
    results: Dict[str, Dict[int, Metrics]] = {outcome.run.title: {} for outcome in outcomes}
    for run, metrics, _ in outcomes:
        if metrics is not None:
            results[run.title][run.seed] = metrics
    table = format_comparison(results)
    (work_dir / 'comparison.md').write_text(f'{table}\n')
    spreads = {
        variant: {
            quality: spread._asdict()
            for quality, spread in qualities.items()
        }
        for variant, qualities in compare_runs(results).items()
    }
    numbers = dict(
        family=plan.family,
        iterations=plan.iterations,
        lr=plan.lr,
        options=list(plan.options),
        runs=results,
        spread=spreads)
    dump(numbers, work_dir / 'comparison.json', indent=2)
    return table
