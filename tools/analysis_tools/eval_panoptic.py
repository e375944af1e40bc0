"""Panoptic quality of predictions in files, with the results of panopticapi's evaluation.py.

    python tools/analysis_tools/eval_panoptic.py --gt-json panoptic_val2017.json --pred-json out/val.json

The files are those of panopticapi and of tools/test.py: a JSON file and a folder of PNGs, which has the name
of the JSON file by default. Areas are counted in the PNGs; panopticapi takes the areas of the annotations. A
prediction without an annotation is ignored, an annotation without a prediction is an error.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_panoptic_file_arguments, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_panoptic_file_arguments(parser)
    parser.add_argument('--json', type=Path, help='write the results to this new JSON file')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from mmengine.fileio import dump

    from remax_mm.evaluation.evaluate_files import count_files, quality_as_dict
    from remax_mm.evaluation.quality_tables import class_table, summary_table
    from remax_mm.panoptic_format import read_panoptic_files

    if args.json and args.json.exists():
        raise FileExistsError(f'Expected a new file for --json, but {args.json} exists')
    files = read_panoptic_files(args.gt_json, args.pred_json, args.gt_folder, args.pred_folder)
    if files.unused:
        print(
            f'{len(files.unused)} predictions are left out: {args.gt_json} has no annotation of their images')
    counts = count_files(files, not args.allow_unlisted_ids, args.processes)
    print(f'\n{class_table(counts, files.classes)}')
    print(f'Panoptic quality of {len(files.pairs)} images:\n{summary_table(counts, files.is_thing)}')
    if args.json:
        dump(quality_as_dict(files, counts), args.json, indent=2)
        print(f'Wrote {args.json}')


if __name__ == '__main__':
    main()
