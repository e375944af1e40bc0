#!/usr/bin/env python
"""Draw the panoptic mini set: COCO's format, no download, a few seconds.

    python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
"""
import argparse
from pathlib import Path

from remax_mm.datasets.mini_panoptic import write_mini_panoptic


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='folder to write, e.g. data/mini_panoptic')
    parser.add_argument('--train', type=int, default=400, help='images in the split train (default 400)')
    parser.add_argument('--val', type=int, default=64, help='images in the split val (default 64)')
    parser.add_argument('--size', type=int, default=129, help='height and width in pixels (default 129)')
    parser.add_argument('--seed', type=int, default=0, help='seed of all that is drawn (default 0)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        written = write_mini_panoptic(args.out, args.train, args.val, args.size, args.seed)
    except (ValueError, FileExistsError) as error:
        raise SystemExit(f'error: {error}')
    what = f'{args.train} training and {args.val} validation images of {args.size} x {args.size} pixels'
    print(f'Wrote {what} to {args.out}' if written else f'Found {what} at {args.out}, nothing to do')


if __name__ == '__main__':
    main()
