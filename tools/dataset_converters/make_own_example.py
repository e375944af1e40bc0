"""Draw images with semantic and instance masks, as an example of own data (docs/own_data.md).

    python tools/dataset_converters/make_own_example.py data/own
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import exit_on_error, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('out', type=Path, help='new folder to write to, such as data/own')
    parser.add_argument(
        '--train', type=int, default=400, help='number of training images (default: %(default)s)')
    parser.add_argument(
        '--val', type=int, default=64, help='number of validation images (default: %(default)s)')
    parser.add_argument(
        '--size', type=int, default=129, help='height and width in pixels (default: %(default)s)')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.datasets import write_own_example

    with exit_on_error():
        write_own_example(args.out, args.train, args.val, args.size)
    count = f'{args.train} training and {args.val} validation images'
    print(f'Wrote {count}, their masks and classes.json to {args.out}')


if __name__ == '__main__':
    main()
