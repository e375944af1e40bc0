"""Panoptic quality of predictions in files, as panopticapi's evaluation.py gives it.

    python tools/analysis_tools/eval_panoptic.py --gt-json panoptic_val2017.json --pred-json out/val.json

The files are those of panopticapi and of tools/test.py: a JSON and a folder of PNGs, which is named after the
JSON where it is not given. Areas are counted in the PNGs; panopticapi believes those that the annotations
list. A prediction without an annotation is left out, an annotation without a prediction is an error.
"""
import argparse
from functools import partial
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

import numpy as np
from mmengine.fileio import dump

from remax_mm.evaluation.panoptic_pairs import add_file_arguments, count_pair
from remax_mm.evaluation.panoptic_quality import class_quality, group_quality
from remax_mm.evaluation.quality_tables import class_table, summary_table
from remax_mm.panoptic_format import PanopticFiles, map_images, read_panoptic_files


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_file_arguments(parser)
    parser.add_argument('--json', type=Path, help='write the numbers to this new JSON file')
    return parser.parse_args(arguments)


def to_numbers(files: PanopticFiles, counts: np.ndarray) -> Dict[str, Any]:
    """What the JSON holds: the means of :func:`group_quality`, and every class, in percent.

    Args:
        files: What was evaluated.
        counts: (K, 4) summed over its images.
    """
    quality = class_quality(counts)
    rows = []
    for label, name in enumerate(files.classes):
        scores = {key.upper(): 100 * float(column[label]) for key, column in quality._asdict().items()}
        segments = {key: int(number) for key, number in zip(('TP', 'FP', 'FN'), counts[label, 1:])}
        if not any(segments.values()):
            scores = dict.fromkeys(scores)
        rows.append(
            dict(
                id=files.category_ids[label],
                name=name,
                isthing=int(files.is_thing[label]),
                **scores,
                **segments))
    return dict(images=len(files.pairs), **group_quality(counts, files.is_thing), classes=rows)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    if args.json and args.json.exists():
        raise FileExistsError(f'Expected a new file for --json, but there is {args.json}')
    files = read_panoptic_files(args.gt_json, args.pred_json, args.gt_folder, args.pred_folder)
    if files.unused:
        print(
            f'{len(files.unused)} predictions are left out: {args.gt_json} has no annotation of their images')

    count = partial(count_pair, num_classes=len(files.classes), check_ids=not args.allow_unlisted_ids)
    counts = sum(map_images(count, files.pairs, args.processes), np.zeros((len(files.classes), 4)))

    print(f'\n{class_table(counts, files.classes)}')
    print(f'Panoptic quality of {len(files.pairs)} images:\n{summary_table(counts, files.is_thing)}')
    if args.json:
        dump(to_numbers(files, counts), args.json, indent=2)
        print(f'Wrote {args.json}')


if __name__ == '__main__':
    main()
