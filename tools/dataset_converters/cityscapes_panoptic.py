"""Convert Cityscapes' instance annotations to the COCO panoptic format; cityscapesscripts is not needed.

    python tools/dataset_converters/cityscapes_panoptic.py data/cityscapes --processes 4

Reads ``gtFine/{split}/<city>/<id>_gtFine_instanceIds.png`` of the download (gtFine_trainvaltest.zip). Writes
``gtFine/cityscapes_panoptic_{split}.json`` and a folder of PNGs of the same name, with the same content as
createPanopticImgs of cityscapesscripts. An interrupted run can be started again.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_overwrite, add_processes, exit_on_error, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('folder', type=Path, help='folder of the download, with gtFine in it')
    parser.add_argument(
        '--splits', nargs='+', default=['train', 'val'], help='splits to convert (default: train val)')
    parser.add_argument('--out', type=Path, help='folder to write to (default: gtFine in the folder)')
    parser.add_argument(
        '--use-train-id',
        action='store_true',
        help='use train ids as category ids, and names that end in _trainId; the dataset class reads both')
    add_processes(parser)
    add_overwrite(parser)
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.datasets.converters import convert_cityscapes

    with exit_on_error():
        for split in args.splits:
            print(
                convert_cityscapes(args.folder, split, args.out, args.use_train_id, args.processes,
                                   args.overwrite))


if __name__ == '__main__':
    main()
