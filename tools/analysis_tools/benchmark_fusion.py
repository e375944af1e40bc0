#!/usr/bin/env python
"""CPU time and peak memory of mask fusion, relative to an older commit.

    python tools/analysis_tools/benchmark_fusion.py

Both commits fuse the same drawn logits of one image, from mask stride to the size of the image, on one
thread. They run in turns, in a new process for each measurement. The old commit is checked out to a temporary
folder. Memory is by how much the first call raises the largest resident set. Unix only.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import make_parser

TASKS = ('panoptic', 'pixelwise', 'instances', 'semantic')


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('--commit', default='55d733f', help='the older commit (default: %(default)s)')
    parser.add_argument('--tasks', nargs='+', choices=list(TASKS), default=list(TASKS), help='(default: all)')
    parser.add_argument(
        '--sizes', nargs='+', type=int, default=[641, 1281], help='sides of the image (default: 641 1281)')
    parser.add_argument('--num-slots', type=int, default=128, help='mask slots (default: %(default)s)')
    parser.add_argument(
        '--rounds', type=int, default=3, help='processes of each commit (default: %(default)s)')
    parser.add_argument(
        '--repeats', type=int, default=3, help='timed calls of each process (default: %(default)s)')
    parser.add_argument('--json', type=Path, help='also write the numbers to this file')
    args = parser.parse_args(arguments)
    for name in ('num_slots', 'rounds', 'repeats'):
        if getattr(args, name) < 1:
            parser.error(
                f'Expected --{name.replace("_", "-")} to be at least 1, but got {getattr(args, name)}')
    if min(args.sizes) < 5:
        parser.error(f'Expected --sizes of at least 5, but got {min(args.sizes)}')
    return args


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from mmengine.fileio import dump

    from remax_mm.analysis.fusion_cost import compare_fusion, format_fusion_comparisons
    from remax_mm.analysis.version_comparison import checked_out

    with checked_out(args.commit) as old_root:
        comparisons = {
            (side, task): compare_fusion(old_root, task, side, args.num_slots, args.rounds, args.repeats)
            for side in args.sizes
            for task in args.tasks
        }
    print(f'Fusion of {args.num_slots} slots, relative to commit {args.commit}')
    print(format_fusion_comparisons(comparisons))
    if args.json is not None:
        numbers = [
            dict(
                size=side,
                task=task,
                old=comparison.old._asdict(),
                new=comparison.new._asdict(),
                time_ratio=comparison.time_ratio,
                memory_ratio=comparison.memory_ratio,
                equal_pixels=comparison.equal_pixels,
                score_difference=comparison.score_difference)
            for (side, task), comparison in comparisons.items()
        ]
        dump(numbers, args.json, indent=2)


if __name__ == '__main__':
    main()
