"""Draw the images of a dataset with their segments, as they come out of the pipeline."""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_cfg_options, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--split',
        choices=['train', 'val', 'test'],
        default='train',
        help='split of the config (default: %(default)s)')
    parser.add_argument('--output-dir', type=Path, help='write <number>_<image name>.png to this folder')
    parser.add_argument('--not-show', action='store_true', help='open no window')
    parser.add_argument(
        '--show-interval',
        type=float,
        default=2,
        help='seconds between pictures in the window (default: %(default)s)')
    parser.add_argument('--num-images', type=int, help='stop after this number of images (default: all)')
    add_cfg_options(parser)
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.apis import load_config
    from remax_mm.apis.browse_dataset import browse_dataset

    config = load_config(args.config, args.cfg_options)
    if args.not_show and args.output_dir is None:
        raise ValueError('Expected --output-dir together with --not-show: the pictures would not be saved')
    browse_dataset(config, args.split, args.output_dir, not args.not_show, args.show_interval,
                   args.num_images)


if __name__ == '__main__':
    main()
