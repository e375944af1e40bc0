"""Memory of the targets of an image, an index map, relative to MMDetection's `preprocess_panoptic_gt`.

    python tools/analysis_tools/benchmark_targets.py

The image is a crop of 1281x1281 pixels with 40 things and 20 stuff segments. Each side runs in its own
process, which has the ground truth as the pipeline packs it. The result is how much the peak resident set
size of the process grows while the targets are made. Unix only.
"""
import argparse
import json
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('--json', type=Path, help='write the results to this JSON file')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.benchmarks.target_memory import SIDE, STUFF, THINGS, compare_targets

    mmdet, ours = compare_targets()
    print(f'MB for an image of {SIDE}x{SIDE} pixels with {THINGS + STUFF} segments')
    print('              ground truth   targets     total')
    for name, memory in (('MMDetection', mmdet), ('ours', ours)):
        print(f'{name:12s}  {memory.ground_truth:12.1f}  {memory.targets:8.1f}  {memory.total:8.1f}')
    print(f'MMDetection takes {mmdet.targets / ours.targets:.1f} times as much for the targets, '
          f'{mmdet.total / ours.total:.1f} times in total')
    if args.json is not None:
        args.json.write_text(json.dumps(dict(mmdet=mmdet._asdict(), ours=ours._asdict()), indent=2))


if __name__ == '__main__':
    main()
