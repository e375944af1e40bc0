"""Time and memory of the losses relative to an older version of this package.

    python tools/analysis_tools/benchmark_training.py --what criterion

The older version is checked out into a temporary folder. Processes of both versions run in turns, on the same
random outputs and segments. Time is CPU time, or wall time on a GPU; memory is the peak of the tensors that
are created. Both include the backward pass. `criterion` is the whole on the seven outputs of kMaX-DeepLab;
the losses are measured on the final output.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from mmengine.fileio import dump

import remax_mm  # noqa: F401  (makes mmdet importable)
from remax_mm.analysis.criterion_cost import CriterionSettings
from remax_mm.analysis.version_comparison import checked_out, compare_criteria, format_comparison
from remax_mm.apis.command_line import exit_on_error, make_parser

METHODS = ('kmax', 'remax')


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        '--what', choices=['criterion'], default='criterion', help='what is measured (default: %(default)s)')
    parser.add_argument('--commit', default='55d733f', help='the older version (default: %(default)s)')
    parser.add_argument(
        '--methods',
        nargs='+',
        choices=METHODS,
        default=list(METHODS),
        help='whose losses are measured (default: %(default)s)')
    parser.add_argument(
        '--segments',
        nargs='+',
        type=int,
        default=[5, 20, 80],
        help='numbers of segments of an image (default: %(default)s)')
    parser.add_argument(
        '--crop', type=int, default=641, help='height and width of the images (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=1, help='number of images (default: %(default)s)')
    parser.add_argument(
        '--num-slots', type=int, default=128, help='number of mask slots (default: %(default)s)')
    parser.add_argument(
        '--rounds', type=int, default=5, help='number of processes of each version (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='number of CPU threads (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='write the results to this JSON file')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    comparisons = {}
    with exit_on_error(), checked_out(args.commit) as old_tree:
        for method in args.methods:
            for num_segments in args.segments:
                settings = CriterionSettings(
                    relaxed=method == 'remax',
                    num_segments=num_segments,
                    side=(args.crop - 1) // 4 + 1,
                    batch_size=args.batch_size,
                    num_slots=args.num_slots)
                comparisons[f'{method}, {num_segments} segments'] = compare_criteria(
                    old_tree, settings, args.rounds, threads=args.threads)

    print(f'Relative to {args.commit}: crop {args.crop}, batch size {args.batch_size}, medians of '
          f'{args.rounds} rounds, {args.threads} CPU thread(s)')
    print(format_comparison(comparisons))
    largest = max(comparison.loss_difference for comparison in comparisons.values())
    print(f'Largest relative difference of a loss: {largest:.2g}')
    if args.out:
        dump({case: comparison._asdict() for case, comparison in comparisons.items()}, args.out, indent=2)


if __name__ == '__main__':
    main()
