#!/usr/bin/env python
"""Latency and memory of inference: engines, configs, sizes and threads measured in turns.

    python tools/analysis_tools/benchmark_inference.py configs/remax/remax-t_mnv3-s_8xb8-150k_coco-641.py
        --engines eager optimized compile --baseline 55d733f
    python tools/analysis_tools/benchmark_inference.py configs/remax/remax-t_mnv3-s_8xb8-150k_coco-641.py
        --engines optimized onnx int8 --onnx out/remax-t --int8 out/remax-t-int8

Each row is a process of its own, and all rows of a size run one image after the other in turn. "With merging"
includes the merging of the masks to a panoptic map at the size of the image: of drawn masks with 20 confident
slots, except for the ONNX engines, whose graph merges its own masks. Reading, resizing and normalizing of the
image are not included, except that the ONNX engines normalize. MMDetection's Mask2Former R50 runs at the same
sizes.
"""
import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence, Tuple

from remax_mm.apis.command_line import exit_on_error, make_parser

if TYPE_CHECKING:
    from remax_mm.benchmarks.inference_speed import Case

ENGINES = ('eager', 'optimized', 'bfloat16', 'cuda-graphs', 'bfloat16-cuda-graphs', 'compile', 'onnx', 'int8')
MASK2FORMER = 'configs/mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py'


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config files')
    parser.add_argument(
        '--engines',
        nargs='+',
        choices=ENGINES,
        default=['eager', 'optimized'],
        help='(default: eager optimized)')
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=int,
        metavar='SIDE',
        help='sides of the image (default: crop of each config)')
    parser.add_argument('--threads', nargs='+', type=int, default=[1], help='CPU threads (default: 1)')
    parser.add_argument('--device', default='cpu', help='of all engines but ONNX (default: %(default)s)')
    parser.add_argument('--checkpoint', help='weights, if there is one config (default: random)')
    parser.add_argument('--onnx', help='exported model of the engine onnx, if there is one config')
    parser.add_argument('--int8', help='quantized model of the engine int8, if there is one config')
    parser.add_argument('--baseline', metavar='COMMIT', help='older commit whose eager model is measured too')
    parser.add_argument('--no-mmdet', action='store_true', help="leave out MMDetection's Mask2Former")
    parser.add_argument('--rounds', type=int, default=20, help='images of each row (default: %(default)s)')
    parser.add_argument('--warmup', type=int, default=2, help='images before (default: %(default)s)')
    parser.add_argument(
        '--clock',
        choices=['wall', 'cpu'],
        default='wall',
        help='wall time, or CPU time of the process (default: %(default)s)')
    parser.add_argument('--json', type=Path, help='also write the numbers to this file')
    parser.add_argument('--plot', type=Path, metavar='PNG', help='also draw the medians')
    args = parser.parse_args(arguments)
    for name in ('rounds', 'warmup'):
        if getattr(args, name) < 1:
            parser.error(f'Expected --{name} to be at least 1, but got {getattr(args, name)}')
    for name in ('checkpoint', 'onnx', 'int8'):
        if getattr(args, name) and len(args.configs) > 1:
            parser.error(f'Expected one config together with --{name}, but got {len(args.configs)}')
    for name in ('onnx', 'int8'):
        if name in args.engines and getattr(args, name) is None:
            parser.error(f'Expected --{name} to name an exported model, because --engines has {name}')
    return args


def crop_size(path: str) -> Tuple[int, int]:
    """Height and width to which the images of a config are padded.

    Raises:
        ValueError: the config does not pad them to one size.
    """
    from remax_mm.apis import load_config
    size = load_config(path).model.get('data_preprocessor', {}).get('pad_size')
    if size is None:
        raise ValueError(f'Expected --sizes, because {path} has no `model.data_preprocessor.pad_size`')
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def plan_cases(args: argparse.Namespace, old_root: Optional[Path]) -> Dict[Tuple, List['Case']]:
    """The rows of each size and number of threads.

    Raises:
        ValueError: there is no size.
    """
    from remax_mm.analysis.version_comparison import REPOSITORY
    from remax_mm.benchmarks.inference_speed import Case
    from remax_mm.benchmarks.inference_worker import Request

    groups: Dict[Tuple, List['Case']] = {}
    for config in args.configs:
        path = Path(config).resolve()
        sizes = [(side, side) for side in args.sizes] if args.sizes else [crop_size(config)]
        for size in sizes:
            for threads in args.threads:
                cases = groups.setdefault((size, threads), [])
                settings = dict(
                    size=size,
                    threads=threads,
                    device=args.device,
                    checkpoint=args.checkpoint,
                    warmup=args.warmup)
                for engine in args.engines:
                    exported = getattr(args, engine, None)
                    cases.append(Case(Request(str(path), engine, onnx=exported, **settings)))
                if old_root is not None:
                    old_config = old_root / path.relative_to(REPOSITORY)
                    cases.append(Case(Request(str(old_config), 'eager', **settings), args.baseline, old_root))
    if not args.no_mmdet:
        for (size, threads), cases in groups.items():
            request = Request(
                str(REPOSITORY / MASK2FORMER), 'eager', size, threads, args.device, warmup=args.warmup)
            cases.append(Case(request))
    return groups


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from mmengine.fileio import dump

    from remax_mm.analysis.version_comparison import checked_out
    from remax_mm.benchmarks.inference_report import describe_machine, format_rows, plot_rows, to_numbers
    from remax_mm.benchmarks.inference_speed import measure_cases

    with exit_on_error(), ExitStack() as stack:
        old_root = stack.enter_context(checked_out(args.baseline)) if args.baseline else None
        rows = []
        for cases in plan_cases(args, old_root).values():
            rows += list(zip(cases, measure_cases(cases, args.rounds, args.clock)))
    machine = describe_machine()
    print(', '.join(f'{key} {value}' for key, value in machine.items()))
    print(f'{args.rounds} images of each row, {args.clock} time')
    print(format_rows(rows))
    if args.json is not None:
        dump(dict(machine=machine, clock=args.clock, rows=to_numbers(rows)), args.json, indent=2)
    if args.plot is not None:
        plot_rows(rows, args.plot)


if __name__ == '__main__':
    main()
