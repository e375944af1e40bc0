"""Compare variants of a model over several trainings with the same seeds, such as ReMaX with a plain sigmoid.

    python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic --test 512
    python tools/analysis_tools/compare_relaxations.py --seeds 5 --iterations 600
    python tools/analysis_tools/compare_relaxations.py --study table3 --seeds 3
    python tools/analysis_tools/compare_relaxations.py --list-studies

The models are trained on the mini dataset. What is compared is a study: kMaX-DeepLab, which first gets a
sigmoid and then the relaxations; mmdet's Mask2Former and MaskFormer; conditions under which the relaxations
might help; other readings of the paper; the tables of the paper. Everything else is equal: data and their
order, augmentations, shared initial weights, learning rate, schedule.

Each run is validated six times, and tested once at its end, on the test split. Finished runs are kept and
interrupted ones continue, so that the same command resumes an interrupted comparison. Studies have trainings
in common: with --reuse work_dirs/compare_relaxations, none is repeated. Writes comparison.md, comparison.json
and plots; each run has a run.json.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.analysis.studies import STUDIES, describe_studies
from remax_mm.apis.command_line import exit_on_error, exit_on_sigterm, make_parser

REPOSITORY = Path(__file__).resolve().parents[2]
TRAINER = REPOSITORY / 'tools' / 'train.py'
CONFIGS = REPOSITORY / 'configs' / 'mini'
UNFINISHED = 75
"""Exit code after the time budget, that of a training that a signal stopped."""


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('--list-studies', action='store_true', help='print the studies, train nothing')
    parser.add_argument(
        '--study', '--family', choices=list(STUDIES), default='kmax', help='what to compare (default: kmax)')
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='folder of the trainings (default: work_dirs/compare_relaxations/<study>)')
    parser.add_argument('--variants', nargs='+', help='variants of the study (default: all)')
    parser.add_argument('--conditions', nargs='+', help='conditions of the study (default: all)')
    parser.add_argument(
        '--baseline', help='variant to compare with (default: that of the study, or else the first variant)')
    parser.add_argument(
        '--seeds', type=int, default=3, help='number of runs of each variant (default: %(default)s)')
    parser.add_argument('--first-seed', type=int, default=0, help='the lowest seed (default: %(default)s)')
    parser.add_argument('--iterations', type=int, help='iterations of each run (default: those of the study)')
    parser.add_argument('--lr', type=float, help='learning rate of all runs (default: that of the study)')
    parser.add_argument('--num-slots', type=int, help='slots of all models (default: those of the study)')
    parser.add_argument(
        '--jobs', type=int, default=1, help='number of runs at the same time (default: %(default)s)')
    parser.add_argument(
        '--time-budget',
        type=float,
        metavar='SECONDS',
        help='after this time, trainings save and stop; the same command continues (default: no limit)')
    parser.add_argument(
        '--reuse',
        type=Path,
        metavar='FOLDER',
        help='do not train what is finished in any comparison below this folder; results are copied')
    parser.add_argument(
        '--log-relaxation',
        action='store_true',
        help='log and draw the gate of ReMask and the balance of the mask losses over the training')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='overrides of all configs, passed to tools/train.py')
    args = parser.parse_args(arguments)
    _complete(args, parser)
    return args


def _complete(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Fill in what depends on the study, and check names and numbers."""
    study = STUDIES[args.study]
    args.work_dir = args.work_dir or Path('work_dirs/compare_relaxations') / args.study
    for name in ('variants', 'conditions'):
        known = list(getattr(study, name))
        setattr(args, name, getattr(args, name) or known)
        unknown = set(getattr(args, name)) - set(known)
        if unknown:
            parser.error(f'Expected --{name} among {known}, but got {sorted(unknown)}')
    if args.baseline is None:
        args.baseline = study.baseline if study.baseline in args.variants else args.variants[0]
    if args.baseline not in args.variants:
        parser.error(f'Expected --baseline among the variants {args.variants}, but got {args.baseline}')
    for name in ('seeds', 'iterations', 'lr', 'num_slots', 'jobs', 'time_budget'):
        value = getattr(args, name)
        if value is not None and value <= 0:
            parser.error(f'Expected --{name.replace("_", "-")} above 0, but got {value}')
    for name in ('iterations', 'lr'):
        fixed = any(getattr(study.conditions[condition], name) for condition in args.conditions)
        if fixed and getattr(args, name) is not None:
            parser.error(f'Expected no --{name} for the study {args.study}, whose conditions set it')
    if args.first_seed < 0:
        parser.error(f'Expected --first-seed of at least 0, but got {args.first_seed}')


def main(arguments: Optional[Sequence[str]] = None, trainer: Path = TRAINER) -> None:
    args = parse_args(arguments)
    if args.list_studies:
        print(describe_studies())
        return
    from remax_mm.analysis.comparison_report import draw_comparison, write_comparison
    from remax_mm.analysis.study_plan import Plan, plan_runs
    from remax_mm.analysis.study_runs import read_outcome, reuse_runs, train_runs

    seeds = range(args.first_seed, args.first_seed + args.seeds)
    plan = Plan(args.study, args.variants, seeds, args.baseline, args.conditions, args.iterations, args.lr,
                args.num_slots, args.cfg_options, args.log_relaxation)
    runs = plan_runs(plan, CONFIGS, args.work_dir)
    with exit_on_error():
        if args.reuse is not None:
            print(f'{len(reuse_runs(runs, args.reuse))} runs are copied from {args.reuse}')
        outcomes = {run.folder: read_outcome(run) for run in runs}
    waiting = [outcome.run for outcome in outcomes.values() if outcome.test is None]
    print(f'{len(outcomes) - len(waiting)} of {len(outcomes)} runs are done already', flush=True)

    with exit_on_sigterm():
        for outcome in train_runs(waiting, trainer, args.jobs, args.time_budget):
            if outcome.test is not None:
                print(f'{outcome.run.name}: PQ {outcome.test["PQ"]:.2f}', flush=True)
            elif outcome.error:
                print(f'FAILED {outcome.run.name}: {outcome.error}', flush=True)
            outcomes[outcome.run.folder] = outcome
            write_comparison(plan, list(outcomes.values()), args.work_dir)

    print(write_comparison(plan, list(outcomes.values()), args.work_dir))
    draw_comparison(plan, list(outcomes.values()), args.work_dir)
    failed = sum(bool(outcome.error) for outcome in outcomes.values())
    unfinished = sum(outcome.test is None for outcome in outcomes.values()) - failed
    if failed or unfinished:
        print(f'{failed} of {len(outcomes)} runs failed and {unfinished} are not finished; the same command '
              'continues them')
        raise SystemExit(1 if failed else UNFINISHED)


if __name__ == '__main__':
    main()
