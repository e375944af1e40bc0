"""Convert the files of an annotation tool to the COCO panoptic format.

    python tools/dataset_converters/annotations_to_panoptic.py --format labelme \\
        --annotations data/mine/labels --images data/mine/images --classes data/mine/classes.json \\
        --out data/mine/panoptic_train.json

labelme     a folder with one JSON file for each photo: polygons, rectangles, circles and masks
via         a project or an export (JSON) of the VGG Image Annotator, version 1 or 2
coco        a JSON file of COCO instances, such as annotations/instances_default.json of CVAT's "COCO 1.0"
cvat-masks  the unpacked folder of CVAT's "Segmentation mask 1.1"

The class file lists the labels as {"name": "car", "isthing": 1}; color and supercategory are optional. Stuff
is drawn first, then crowds and void shapes, then things. Pixels without a shape are void, or have the class
of a semantic PNG (``--semantic``); the class file then needs a value for each class, as for
masks_to_panoptic.py.

Points outside of the image, overlapping shapes, unknown labels and missing photos are errors that name the
file. ``--val-out`` splits one export: every ``--val-every``-th photo goes to a second JSON.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_overwrite, add_processes, exit_on_error, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('--format', required=True, help='labelme, via, coco or cvat-masks, see above')
    parser.add_argument('--annotations', type=Path, required=True, help='file or folder, see above')
    parser.add_argument('--images', type=Path, required=True, help='folder of photos')
    parser.add_argument('--classes', type=Path, required=True, help='class file, see above')
    parser.add_argument(
        '--out', type=Path, required=True, help='JSON file to write; the PNGs are written next to it')
    parser.add_argument('--val-out', type=Path, help='second JSON file, for some of the photos')
    parser.add_argument(
        '--val-every', type=int, default=10, help='photos for each one of --val-out (default: %(default)s)')
    parser.add_argument('--semantic', type=Path, help='folder of semantic PNGs below the shapes')
    parser.add_argument(
        '--void', nargs='+', default=[], metavar='LABEL', help='labels or semantic values that are unlabeled')
    parser.add_argument(
        '--overlap',
        choices=['error', 'smaller'],
        default='error',
        help='where two things, or two kinds of stuff, overlap: stop, or draw the smaller shape on top '
        '(default: %(default)s)')
    parser.add_argument('--clip', action='store_true', help='cut shapes at the border of the image')
    parser.add_argument(
        '--label-attribute',
        metavar='NAME',
        help='region attribute of VIA with the class (default: the only one)')
    add_processes(parser)
    add_overwrite(parser)
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.datasets.converters import AnnotationSource, DrawingRules, convert_annotations

    source = AnnotationSource(args.format, args.annotations, args.images, args.semantic, args.label_attribute)
    rules = DrawingRules(args.void, args.overlap == 'smaller', args.clip)
    void_values = [int(label) for label in args.void if args.semantic and label.isdecimal()]
    with exit_on_error():
        written = convert_annotations(args.out, source, args.classes, rules, void_values, args.val_out,
                                      args.val_every, args.processes, args.overwrite)
    print(*written, sep='\n')


if __name__ == '__main__':
    main()
