"""Convert ADE20K's semantic and instance annotations to the COCO panoptic format.

    python tools/dataset_converters/ade20k_panoptic.py data/ADEChallengeData2016 --processes 4

Reads ``images``, ``annotations`` (both of ADEChallengeData2016.zip) and ``annotations_instance`` (of
annotations_instance.tar, http://sceneparsing.csail.mit.edu and CSAILVision/placeschallenge,
instancesegmentation/README.md), each with ``training`` and ``validation``. Writes
``ade20k_panoptic_{train,val}.json`` and folders of PNGs of the same name. An interrupted run can be started
again. Pixels of a thing class without an instance become void.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_overwrite, add_processes, exit_on_error, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('folder', type=Path, help='folder ADEChallengeData2016')
    parser.add_argument(
        '--splits',
        nargs='+',
        default=['train', 'val'],
        choices=['train', 'val'],
        help='splits to convert (default: train val)')
    parser.add_argument('--out', type=Path, help='folder to write to (default: the folder itself)')
    add_processes(parser)
    add_overwrite(parser)
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.datasets.converters import convert_ade20k

    with exit_on_error():
        for split in args.splits:
            print(convert_ade20k(args.folder, split, args.out, args.processes, args.overwrite))


if __name__ == '__main__':
    main()
