"""Analyze the errors of panoptic predictions, and draw the worst images.

    python tools/analysis_tools/panoptic_errors.py --gt-json panoptic_val2017.json --pred-json out/val.json \
        --img-folder val2017 --out-dir work_dirs/errors --worst 20

Each segment that counts against PQ is missed, hallucinated, of the wrong class, merged, split or has a poor
mask; remax_mm/evaluation/panoptic_errors.py defines these kinds. The output folder gets errors.json and
errors.txt, and the images of lowest PQ as worst/*.png: input | ground truth | prediction.
"""
import argparse
from functools import partial
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_panoptic_file_arguments, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_panoptic_file_arguments(parser)
    parser.add_argument(
        '--img-folder', type=Path, help='folder of photos (default: the maps are drawn on gray)')
    parser.add_argument(
        '--dataset-type',
        default='PanopticMapDataset',
        help='dataset class that finds the photos, such as CityscapesPanopticMapDataset (default: '
        'PanopticMapDataset, which takes the names of the JSON file)')
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('work_dirs/panoptic_errors'),
        help='new or empty folder for the results (default: %(default)s)')
    parser.add_argument(
        '--worst', type=int, default=10, help='number of images to list and to draw (default: %(default)s)')
    args = parser.parse_args(arguments)
    if args.out_dir.exists() and any(args.out_dir.iterdir()):
        raise FileExistsError(
            f'Expected --out-dir to be a new or an empty folder, but {args.out_dir} is not empty')
    return args


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from mmengine.fileio import dump

    from remax_mm.apis.error_pictures import write_worst_images
    from remax_mm.evaluation import errors_as_dict, format_errors, inspect_pair
    from remax_mm.panoptic_format import map_images, read_panoptic_files

    files = read_panoptic_files(args.gt_json, args.pred_json, args.gt_folder, args.pred_folder)
    inspect = partial(inspect_pair, is_thing=files.is_thing, check_ids=not args.allow_unlisted_ids)
    images = list(map_images(inspect, files.pairs, args.processes))

    args.out_dir.mkdir(parents=True, exist_ok=True)
    dump(errors_as_dict(files, images), args.out_dir / 'errors.json', indent=2)
    text = format_errors(files, images, args.worst)
    (args.out_dir / 'errors.txt').write_text(text + '\n', encoding='utf-8')
    print(f'\n{text}\n')
    write_worst_images(files, images, args.out_dir / 'worst', args.worst, args.gt_json, args.img_folder,
                       args.dataset_type)
    print(f'Wrote errors.json, errors.txt and the worst images to {args.out_dir}')


if __name__ == '__main__':
    main()
