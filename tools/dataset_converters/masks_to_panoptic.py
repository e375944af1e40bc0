"""Convert semantic and instance masks, such as your own data, to the COCO panoptic format.

    python tools/dataset_converters/masks_to_panoptic.py --images data/mine/images/train \\
        --semantic data/mine/semantic/train --instances data/mine/instances/train \\
        --classes data/mine/classes.json --out data/mine/panoptic_train.json

The masks have the names of the photos, with another ending. A semantic PNG has a class value per pixel,
an instance PNG a number per pixel (8 or 16 bits), 0 for none. The semantic PNG gives the class of a pixel,
the instance number separates the objects of a class: numbers may start again in each class, numbers on stuff
are ignored, and a thing without a number is a crowd region. COCO instance annotations can replace the
instance PNGs (``--instances-json``); they are drawn over the semantic PNG, small instances over large ones.

The class file is JSON or YAML, a list of entries such as

    {"name": "car", "value": 13, "isthing": 1, "color": [0, 0, 142], "supercategory": "vehicle"}

in which color and supercategory are optional. Values without a class are an error unless they are in
``--void``. Writes the JSON file and, next to it, a folder of PNGs of the same name. An interrupted run can be
started again.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_overwrite, add_processes, exit_on_error, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('--images', type=Path, required=True, help='folder of photos')
    parser.add_argument('--semantic', type=Path, required=True, help='folder of semantic PNGs')
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--instances', type=Path, help='folder of instance PNGs')
    source.add_argument(
        '--instances-json', type=Path, help='COCO instance annotations, instead of instance PNGs')
    parser.add_argument('--classes', type=Path, required=True, help='class file, see above')
    parser.add_argument(
        '--out', type=Path, required=True, help='JSON file to write; the PNGs are written next to it')
    parser.add_argument('--void', type=int, nargs='+', default=[], help='semantic values that are unlabeled')
    parser.add_argument('--image-suffix', default='.jpg', help='ending of photos (default: %(default)s)')
    parser.add_argument(
        '--semantic-suffix', default='.png', help='ending of semantic PNGs (default: %(default)s)')
    parser.add_argument(
        '--instance-suffix', default='.png', help='ending of instance PNGs (default: %(default)s)')
    add_processes(parser)
    add_overwrite(parser)
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.datasets.converters import MaskSource, convert_masks, unused_semantic_pngs

    source = MaskSource(args.images, args.semantic, args.instances, args.instances_json, args.image_suffix,
                        args.semantic_suffix, args.instance_suffix)
    with exit_on_error():
        print(convert_masks(args.out, source, args.classes, args.void, args.processes, args.overwrite))
        unused = unused_semantic_pngs(source)
    if unused:
        print(f'  {len(unused)} semantic PNGs have no photo and were left out, such as {min(unused)}')


if __name__ == '__main__':
    main()
