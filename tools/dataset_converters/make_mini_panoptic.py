"""Draw the panoptic mini dataset in the COCO panoptic format: no download, a few seconds.

    python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
    python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic --test 512

The second command adds a test split, which tools/analysis_tools/compare_relaxations.py needs.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_processes, exit_on_error, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('out', type=Path, help='folder to write to, such as data/mini_panoptic')
    parser.add_argument(
        '--preset', choices=('mini', 'crowded'), default='mini', help='what to draw (default: %(default)s)')
    parser.add_argument('--train', type=int, help='number of training images (default: 400; crowded 2000)')
    parser.add_argument('--val', type=int, help='number of validation images (default: 64)')
    parser.add_argument('--test', type=int, default=0, help='number of test images (default: no test split)')
    parser.add_argument('--size', type=int, help='height and width in pixels (default: 129; crowded 257)')
    parser.add_argument('--seed', type=int, default=0, help='random seed (default: %(default)s)')
    add_processes(parser)
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.datasets import PRESETS, write_mini_panoptic

    preset = PRESETS[args.preset]
    train, val, size = (
        getattr(preset, name) if getattr(args, name) is None else getattr(args, name)
        for name in ('train', 'val', 'size'))
    with exit_on_error():
        written = write_mini_panoptic(args.out, train, val, size, args.seed, args.test, args.preset,
                                      args.processes)
    counts = f'{train} training and {val} validation images'
    if args.test:
        counts = f'{train} training, {val} validation and {args.test} test images'
    content = f'{counts} of {size} x {size} pixels'
    print(f'Wrote {content} to {args.out}' if written else f'Found {content} at {args.out}, nothing to do')


if __name__ == '__main__':
    main()
