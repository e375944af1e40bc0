"""Compare PQ without relaxations, with ReMask, and with ReMask and ReClass, over several trainings.

    python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
    python tools/analysis_tools/compare_relaxations.py --seeds 3
    python tools/analysis_tools/compare_relaxations.py --family mask2former --seeds 3

The models are trained on the mini dataset. The families are kMaX-DeepLab, which first gets a sigmoid, and
mmdet's Mask2Former and MaskFormer. Everything else is equal: data, their order, the network at inference,
learning rate, schedule. Finished runs are kept, so that the same command resumes an interrupted comparison.
Writes comparison.md and comparison.json.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.analysis.relaxation_runs import (FAMILIES, Outcome, Plan, plan_runs, read_finished, train_runs,
                                               write_comparison)
from remax_mm.apis.command_line import make_parser

REPOSITORY = Path(__file__).resolve().parents[2]
TRAINER = REPOSITORY / 'tools' / 'train.py'
CONFIGS = REPOSITORY / 'configs' / 'mini'


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        '--family', choices=list(FAMILIES), default='kmax', help='model family (default: %(default)s)')
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='folder of the trainings (default: work_dirs/compare_relaxations/<family>)')
    parser.add_argument(
        '--seeds', type=int, default=3, help='number of runs of each variant (default: %(default)s)')
    parser.add_argument(
        '--iterations', type=int, help='iterations of each run (default: 1000 for kmax, 600 for the others)')
    parser.add_argument(
        '--lr', type=float, help='learning rate of all runs (default: 4e-3 for kmax, 1e-3 for the others)')
    parser.add_argument('--variants', nargs='+', help='variants of the family (default: all)')
    parser.add_argument(
        '--jobs', type=int, default=1, help='number of runs at the same time (default: %(default)s)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='overrides of all configs, passed to tools/train.py')
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


def main(arguments: Optional[Sequence[str]] = None, trainer: Path = TRAINER) -> None:
    args = parse_args(arguments)
    plan = Plan(args.family, args.variants, args.seeds, args.iterations, args.lr, args.cfg_options)
    runs = plan_runs(plan, CONFIGS, args.work_dir)
    outcomes = {run.folder: Outcome(run, read_finished(run)) for run in runs}
    waiting = [outcome.run for outcome in outcomes.values() if outcome.metrics is None]
    print(f'{len(runs) - len(waiting)} of {len(runs)} runs are done already', flush=True)

    for outcome in train_runs(waiting, args.iterations, trainer, args.jobs):
        name = f'{outcome.run.variant}, seed {outcome.run.seed}'
        print(
            f'FAILED {name}: {outcome.error}'
            if outcome.metrics is None else f'{name}: PQ {outcome.metrics["PQ"]:.2f}',
            flush=True)
        outcomes[outcome.run.folder] = outcome

    table = write_comparison(plan, list(outcomes.values()), args.work_dir)
    print(f'\nMean ± sample standard deviation (lowest to highest), {args.iterations} iterations, '
          f'learning rate {args.lr:g}\n{table}')
    failed = sum(outcome.metrics is None for outcome in outcomes.values())
    if failed:
        raise SystemExit(f'{failed} of {len(runs)} runs failed; the same command tries them again')


if __name__ == '__main__':
    main()
