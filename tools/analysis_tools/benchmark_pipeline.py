"""Compare the speed of the training pipeline with MMDetection's, in images per second.

    python tools/analysis_tools/benchmark_pipeline.py
    python tools/analysis_tools/benchmark_pipeline.py --data data/coco --split val2017

One process does the work of a data loader worker, from files to packed tensors. Both sides load the same
images, resize them to the same random scales, pad, crop and flip, with the settings of the crop size in
configs/_base_/datasets. MMDetection's side has the steps of its configs of Mask2Former. The pipelines run in
turn.
"""
import argparse
import json
import tempfile
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import make_parser

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'datasets'
CONFIG_OF_CROP = {641: CONFIGS / 'coco_panoptic_641.py', 1281: CONFIGS / 'coco_panoptic.py'}


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('--data', type=Path, help="folder in COCO's layout (default: images are drawn)")
    parser.add_argument('--split', default='val2017', help='split of --data (default: %(default)s)')
    parser.add_argument(
        '--num-images', type=int, default=32, help='number of images of the split (default: %(default)s)')
    parser.add_argument(
        '--segments',
        type=int,
        nargs=2,
        default=(10, 60),
        metavar=('MIN', 'MAX'),
        help='fewest and most segments of a drawn image (default: 10 60)')
    parser.add_argument(
        '--crops',
        type=int,
        nargs='+',
        choices=sorted(CONFIG_OF_CROP),
        default=sorted(CONFIG_OF_CROP),
        help='crop sizes (default: 641 1281)')
    parser.add_argument(
        '--repeats', type=int, default=5, help='number of passes of each pipeline (default: %(default)s)')
    parser.add_argument(
        '--color-policy', action='store_true', help='use the color policy on both sides (default: neither)')
    parser.add_argument('--json', type=Path, help='write the results to this JSON file')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    import cv2
    import torch
    from mmengine.registry import init_default_scope

    from remax_mm.apis import load_config
    from remax_mm.benchmarks import compare_pipelines
    from remax_mm.benchmarks.coco_like_images import draw_coco_like

    init_default_scope('mmdet')
    # As mmengine sets up the workers of a training.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as drawn:
        data, split = args.data, args.split
        if data is None:
            data, split = Path(drawn), 'drawn'
            draw_coco_like(data, split, args.num_images, args.segments)
        speeds = {
            crop:
            compare_pipelines(
                load_config(CONFIG_OF_CROP[crop]), data, split, args.num_images, args.repeats,
                args.color_policy)
            for crop in args.crops
        }

    print(f'Images per second, medians of {args.repeats} repeats over the same images')
    print('crop   MMDetection     ours (ratio)   with copy-paste (ratio)')
    for crop, speed in speeds.items():
        print(f'{crop:4d}   {speed.mmdet:11.1f}   {speed.ours:6.1f} ({speed.ratio:.2f})   '
              f'{speed.ours_copy_paste:15.1f} ({speed.ratio_copy_paste:.2f})')
    if args.json is not None:
        args.json.write_text(json.dumps({crop: speed._asdict() for crop, speed in speeds.items()}, indent=2))


if __name__ == '__main__':
    main()
