"""Draw the panoptic mini dataset in the COCO panoptic format: no download, a few seconds.

    python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
    python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic --test 512

The second command adds a test split, which tools/analysis_tools/compare_relaxations.py needs.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import exit_on_error, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('out', type=Path, help='folder to write to, such as data/mini_panoptic')
    parser.add_argument(
        '--train', type=int, default=400, help='number of training images (default: %(default)s)')
    parser.add_argument(
        '--val', type=int, default=64, help='number of validation images (default: %(default)s)')
    parser.add_argument('--test', type=int, default=0, help='number of test images (default: no test split)')
    parser.add_argument(
        '--size', type=int, default=129, help='height and width in pixels (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='random seed (default: %(default)s)')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.datasets import write_mini_panoptic

    with exit_on_error():
        written = write_mini_panoptic(args.out, args.train, args.val, args.size, args.seed, args.test)
    counts = f'{args.train} training and {args.val} validation images'
    if args.test:
        counts = f'{args.train} training, {args.val} validation and {args.test} test images'
    content = f'{counts} of {args.size} x {args.size} pixels'
    print(f'Wrote {content} to {args.out}' if written else f'Found {content} at {args.out}, nothing to do')


if __name__ == '__main__':
    main()
