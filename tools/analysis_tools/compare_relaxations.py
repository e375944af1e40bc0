"""Train a model plain, with ReMask and with ReClass too on the mini set, several times each, and compare PQ.

    python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
    python tools/analysis_tools/compare_relaxations.py --seeds 3
    python tools/analysis_tools/compare_relaxations.py --family mask2former --seeds 3

The families are kMaX-DeepLab, which gets a sigmoid first, and mmdet's Mask2Former and MaskFormer. Everything
else is equal: data, their order, network at inference, learning rate, schedule. Finished runs are
kept, so that the same command goes on where it was stopped. Writes comparison.md and comparison.json.
"""
import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from mmengine.fileio import dump, load

from remax_mm.analysis import compare_runs, format_comparison, read_final_metrics

REPOSITORY = Path(__file__).resolve().parents[2]
TRAINER = REPOSITORY / 'tools' / 'train.py'
CONFIGS = REPOSITORY / 'configs' / 'mini'


class Variant(NamedTuple):
    """Its name in the table, its config, and what it changes of it."""
    title: str
    config: str
    options: Tuple[str, ...] = ()


class Family(NamedTuple):
    """Variants by the names of their folders, each with one thing more than the one before; and a recipe."""
    variants: Dict[str, Variant]
    iterations: int
    lr: float


def _family_of_mmdet(name: str, title: str) -> Family:
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
    'mask2former': _family_of_mmdet('mask2former', 'Mask2Former'),
    'maskformer': _family_of_mmdet('maskformer', 'MaskFormer'),
}  # yapf: disable


class Run(NamedTuple):
    """One training: title and name of its variant, its seed, its config and what it changes, its folder."""
    title: str
    variant: str
    seed: int
    config: Path
    options: List[str]
    folder: Path

    @property
    def settings(self) -> dict:
        return dict(config=self.config.name, options=self.options)


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--family', choices=list(FAMILIES), default='kmax', help='model (default: kmax)')
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/compare_relaxations/<family>')
    parser.add_argument('--seeds', type=int, default=3, help='runs of each variant (default: 3)')
    parser.add_argument(
        '--iterations', type=int, help='of each run (default: 1000 of kmax, 600 of the others)')
    parser.add_argument(
        '--lr', type=float, help='learning rate of all runs (default: 4e-3 of kmax, 1e-3 of the others)')
    parser.add_argument('--variants', nargs='+', help='some of the family (default: all)')
    parser.add_argument('--jobs', type=int, default=1, help='runs at the same time (default: 1)')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='further overrides for all runs, as of tools/train.py')
    args = parser.parse_args(arguments)
    family = FAMILIES[args.family]
    args.iterations = family.iterations if args.iterations is None else args.iterations
    args.lr = family.lr if args.lr is None else args.lr
    args.work_dir = args.work_dir or Path('work_dirs/compare_relaxations') / args.family
    args.variants = args.variants or list(family.variants)
    unknown = set(args.variants) - set(family.variants)
    if unknown:
        parser.error(f'Expected --variants among {list(family.variants)}, but got {sorted(unknown)}')
    for name in ('seeds', 'iterations', 'jobs'):
        if getattr(args, name) < 1:
            parser.error(f'Expected --{name} to be at least 1, but got {getattr(args, name)}')
    return args


def plan_runs(args: argparse.Namespace) -> List[Run]:
    """All runs, seed by seed, so that an unfinished comparison is still a fair one."""
    iterations = args.iterations
    schedule = [
        f'optim_wrapper.optimizer.lr={args.lr}', f'train_cfg.max_iters={iterations}',
        f'train_cfg.val_interval={iterations}', f'param_scheduler.0.end={max(iterations // 10, 2)}',
        f'param_scheduler.1.milestones=[{iterations * 85 // 100},{iterations * 95 // 100}]'
    ]
    variants = {name: FAMILIES[args.family].variants[name] for name in args.variants}
    return [
        Run(variant.title, name, seed, CONFIGS / variant.config,
            [f'randomness.seed={seed}', *schedule, *variant.options, *args.cfg_options],
            args.work_dir / name / f'seed{seed}') for seed in range(args.seeds)
        for name, variant in variants.items()
    ]


def read_finished(run: Run) -> Optional[Dict[str, float]]:
    """Metrics of a run that is done, None of one that is not.

    Raises:
        ValueError: the folder holds a run of other settings.
    """
    path = run.folder / 'metrics.json'
    if not path.is_file():
        return None
    finished = load(path)
    if finished['settings'] != run.settings:
        raise ValueError(f'Expected a run of {run.settings} in {run.folder}, but it is one of '
                         f'{finished["settings"]}; choose another --work-dir')
    return finished['metrics']


def train(run: Run, iterations: int, trainer: Path, jobs: int) -> Optional[Dict[str, float]]:
    """Metrics of a run that is trained now, in a process of its own; None if that failed."""
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
        print(f'FAILED {run.variant}, seed {run.seed}: {"".join(last)} (see {log})', flush=True)
        return None
    metrics = read_final_metrics(run.folder, iterations)
    dump(dict(settings=run.settings, metrics=metrics), run.folder / 'metrics.json', indent=2)
    print(f'{run.variant}, seed {run.seed}: PQ {metrics["PQ"]:.2f}', flush=True)
    return metrics


def main(arguments: Optional[Sequence[str]] = None, trainer: Path = TRAINER) -> None:
    args = parse_args(arguments)
    planned = plan_runs(args)
    finished = {run.folder: read_finished(run) for run in planned}
    waiting = [run for run in planned if finished[run.folder] is None]
    print(f'{len(planned) - len(waiting)} of {len(planned)} runs are done already', flush=True)

    # One thread waits for each process
    with ThreadPoolExecutor(args.jobs) as pool:
        trained = pool.map(lambda run: train(run, args.iterations, trainer, args.jobs), waiting)
        finished.update(zip([run.folder for run in waiting], trained))

    # A failed run, say, one that did not stay finite, is missing from the table and named at the end
    results = {run.title: {} for run in planned}
    for run in planned:
        if finished[run.folder] is not None:
            results[run.title][run.seed] = finished[run.folder]
    table = format_comparison(results)
    (args.work_dir / 'comparison.md').write_text(f'{table}\n')
    spreads = {
        variant: {
            quality: spread._asdict()
            for quality, spread in qualities.items()
        }
        for variant, qualities in compare_runs(results).items()
    }
    dump(
        dict(
            family=args.family,
            iterations=args.iterations,
            lr=args.lr,
            options=args.cfg_options,
            runs=results,
            spread=spreads),
        args.work_dir / 'comparison.json',
        indent=2)
    print(f'\nMean ± sample standard deviation (lowest to highest), {args.iterations} iterations, '
          f'learning rate {args.lr:g}\n{table}')
    failed = [run for run in planned if finished[run.folder] is None]
    if failed:
        raise SystemExit(f'{len(failed)} of {len(planned)} runs failed; the same command tries them again')


if __name__ == '__main__':
    main()
