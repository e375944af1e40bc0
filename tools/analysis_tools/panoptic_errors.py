"""What goes wrong in panoptic predictions, and how the worst of them look.

    python tools/analysis_tools/panoptic_errors.py --gt-json panoptic_val2017.json --pred-json out/val.json \
        --img-folder val2017 --out-dir work_dirs/errors --worst 20

Each segment that counts against PQ is missed, hallucinated, of the wrong class, merged, split or has a poor
mask; remax_mm/analysis/panoptic_errors.py says what these mean. The output folder gets errors.json and
errors.txt, and the worst images by their own PQ as worst/*.png: input | ground truth | prediction.
"""
import argparse
from functools import partial
from pathlib import Path
from typing import Callable, List, Optional, Sequence

import mmcv
import numpy as np
from mmdet.registry import DATASETS
from mmengine.fileio import dump

from remax_mm.evaluation.panoptic_error_report import errors_as_dict, format_errors, summarize_image
from remax_mm.evaluation.panoptic_errors import ImageErrors, inspect_pair, worst_images
from remax_mm.evaluation.panoptic_pairs import add_file_arguments
from remax_mm.panoptic_format import (PanopticFiles, PanopticPair, annotated_panoptic_map, map_images,
                                      read_panoptic_files, read_segment_ids)
from remax_mm.visualization.draw_panoptic import draw_panoptic, label_panels


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_file_arguments(parser)
    parser.add_argument('--img-folder', type=Path, help='photos (default: the maps are drawn on gray)')
    parser.add_argument(
        '--dataset-type',
        default='PanopticMapDataset',
        help='class that finds the photos, such as CityscapesPanopticMapDataset (default: names of the JSON)')
    parser.add_argument(
        '--out-dir', type=Path, default=Path('work_dirs/panoptic_errors'), help='a new folder')
    parser.add_argument('--worst', type=int, default=10, help='images to list and to draw (default: 10)')
    args = parser.parse_args(arguments)
    if args.out_dir.exists() and any(args.out_dir.iterdir()):
        raise FileExistsError(f'Expected --out-dir to be a new or an empty folder, but there is something in '
                              f'{args.out_dir}')
    return args


def read_photo(files: PanopticFiles, pair: PanopticPair, photo_name: Callable[[dict], str],
               img_folder: Path) -> np.ndarray:
    """The photo (H, W, 3) in RGB of an annotated image.

    Raises:
        FileNotFoundError: there is no such photo.
        ValueError: the annotations do not name it, or it has another size than its annotation.
    """
    if pair.image_id not in files.images:
        raise ValueError(
            f'Expected the file of the image {pair.image_id!r}, whose annotation is {pair.gt_png}, '
            'among the `images` of the annotations, but it is not there; leave out --img-folder')
    path = img_folder / photo_name(files.images[pair.image_id])
    if not path.is_file():
        raise FileNotFoundError(f'Expected the image {pair.image_id!r} at {path}, but there is none.')
    photo, size = mmcv.imread(str(path), channel_order='rgb'), read_segment_ids(pair.gt_png).shape
    if photo.shape[:2] != size:
        raise ValueError(
            f'Expected {path} to have the size {size} of {pair.gt_png}, but it has {photo.shape[:2]}')
    return photo


def draw_image(files: PanopticFiles,
               pair: PanopticPair,
               image: ImageErrors,
               quality: float,
               photo: Optional[np.ndarray] = None) -> np.ndarray:
    """Input (gray without a photo), ground truth and prediction, under their numbers of errors, in RGB."""
    annotated, predicted = read_segment_ids(pair.gt_png), read_segment_ids(pair.pred_png)
    if photo is None:
        photo = np.full((*annotated.shape, 3), 128, dtype=np.uint8)

    gt_segments = [dict(s, is_thing=files.is_thing[s['category']]) for s in pair.gt_segments]
    pred_segments = [
        dict(id=segment_id, category=label, is_thing=files.is_thing[label])
        for segment_id, label in pair.pred_labels.items()
    ]
    panels = [(f'PQ {quality:.1f}', photo)]
    for title, ids, segments, side in (('ground truth', annotated, gt_segments, True),
                                       ('prediction', predicted, pred_segments, False)):
        panoptic_map = annotated_panoptic_map(ids, segments, len(files.classes))
        drawn = draw_panoptic(photo, panoptic_map, files.classes)
        panels.append((f'{title}: {summarize_image(image, side)}', drawn))
    return label_panels(panels)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    files = read_panoptic_files(args.gt_json, args.pred_json, args.gt_folder, args.pred_folder)
    inspect = partial(inspect_pair, is_thing=files.is_thing, check_ids=not args.allow_unlisted_ids)
    images: List[ImageErrors] = list(map_images(inspect, files.pairs, args.processes))

    args.out_dir.mkdir(parents=True, exist_ok=True)
    dump(errors_as_dict(files, images), args.out_dir / 'errors.json', indent=2)
    text = format_errors(files, images, args.worst)
    (args.out_dir / 'errors.txt').write_text(text + '\n', encoding='utf-8')
    print(f'\n{text}\n')

    dataset = DATASETS.get(args.dataset_type)(
        ann_file=str(args.gt_json), data_prefix=dict(img=''), lazy_init=True)
    for rank, (quality, image) in enumerate(worst_images(images, files.is_thing)[:args.worst], start=1):
        pair = next(pair for pair in files.pairs if pair.image_id == image.image_id)
        photo = args.img_folder and read_photo(files, pair, dataset.photo_name, args.img_folder)
        drawn = draw_image(files, pair, image, quality, photo)
        mmcv.imwrite(drawn[..., ::-1],
                     str(args.out_dir / 'worst' / f'{rank:03d}_{Path(pair.gt_png).stem}.png'))
    print(f'Wrote errors.json, errors.txt and the worst images to {args.out_dir}')


if __name__ == '__main__':
    main()
