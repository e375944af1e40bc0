"""Compare the time of PQ with MMDetection's: PanopticQualityMetric and CocoPanopticMetric, on drawn images.

    python tools/analysis_tools/benchmark_panoptic_quality.py

MMDetection's metric runs as in its configs, with an annotation file and a folder of PNGs: it writes each
prediction to a PNG and reads it again, decodes the annotated PNG, and compares each segment on the whole map.
If panopticapi is missing, the few names that MMDetection imports from it are replaced. Both metrics evaluate
the same predictions in turn in each repeat, on one thread, and must give the same PQ. The time does not
include the model or the reading of samples.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        '--sizes',
        nargs='+',
        default=['480x640', '1024x2048'],
        metavar='HxW',
        help='heights and widths of images (default: 480x640 1024x2048, as COCO and Cityscapes)')
    parser.add_argument(
        '--images', type=int, default=8, help='number of images of each size (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=5, help='number of evaluations (default: %(default)s)')
    parser.add_argument(
        '--seed', type=int, default=0, help='random seed of the images (default: %(default)s)')
    parser.add_argument('--json', type=Path, help='write the results to this JSON file')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    import cv2
    import numpy as np
    import torch
    from mmengine.fileio import dump
    from mmengine.logging import MMLogger

    from remax_mm.benchmarks import compare_metrics
    from remax_mm.panopticapi_replacement import replace_missing_panopticapi

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    MMLogger.get_instance('benchmark_panoptic_quality').setLevel('ERROR')  # no table for each evaluation
    print(f'panopticapi: {"missing, replaced" if replace_missing_panopticapi() else "installed"}')

    numbers = {}
    for text in args.sizes:
        height, width = map(int, text.split('x'))
        timing = compare_metrics((height, width), args.images, args.repeats, args.seed)
        numbers[text] = dict(timing._asdict(), ratio=timing.ratio)
        print(f'{text}: {np.median(timing.ours):.1f} ms per image, mmdet {np.median(timing.mmdet):.1f} ms, '
              f'{timing.ratio:.1f}x (medians of {args.repeats} repeats with {args.images} images; ours '
              f'{min(timing.ours):.1f} to {max(timing.ours):.1f}, mmdet {min(timing.mmdet):.1f} to '
              f'{max(timing.mmdet):.1f} ms; PQ {timing.quality:.2f} by both)')
    if args.json:
        dump(numbers, args.json, indent=2)


if __name__ == '__main__':
    main()
