"""Measure on a GPU what training and inference cost, and write a report.

    python tools/analysis_tools/gpu_report.py --out work_dirs/gpu_report
    python tools/analysis_tools/gpu_report.py --device cpu --tiny --budget 300 --out work_dirs/trial

The report has the results of tests/cuda, images per second and peak memory of training steps, the same for
MMDetection's Mask2Former, inference with several engines, the share of time in data, forward and backward
pass, the effect of activation checkpointing, and a short training. Each part runs in a process of its own and
shares the time limit with the others. The same command resumes: it keeps what is done, and tries again what
was stopped, skipped or failed. Writes report.md, report.json and pictures.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import exit_on_error, exit_on_sigterm, make_parser

PARTS = ('machine', 'tests', 'training', 'inference', 'mask2former', 'shares', 'mini', 'checkpointing')


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/gpu_report'),
        help='folder of the report and of the results that it is made of (default: %(default)s)')
    parser.add_argument(
        '--budget',
        type=float,
        default=600.,
        metavar='SECONDS',
        help='time limit of the whole run; 0 writes the report of the stored results (default: %(default)s)')
    parser.add_argument(
        '--parts', nargs='+', choices=PARTS, help='what is measured; the report has all parts (default: all)')
    parser.add_argument(
        '--device',
        choices=['cuda', 'cpu'],
        default='cuda',
        help='cuda is the first GPU; cpu is meant for trials (default: %(default)s)')
    parser.add_argument('--tiny', action='store_true', help='tiny models, for a trial of this tool')
    args = parser.parse_args(arguments)
    if args.budget < 0:
        parser.error(f'Expected --budget to be at least 0, but got {args.budget:g}')
    return args


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.benchmarks.gpu_report.make_report import make_report

    with exit_on_error(), exit_on_sigterm():
        make_report(args.out, args.device, args.budget, args.parts, 'tiny' if args.tiny else 'full')


if __name__ == '__main__':
    main()
