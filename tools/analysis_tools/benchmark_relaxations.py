"""Time and memory of a training step with and without relaxations, and a check that inference is the same.

    python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
    python tools/analysis_tools/benchmark_relaxations.py configs/mini/mask2former_r18_1xb8-600_mini-129.py \
        configs/mini/remax-mask2former_r18_1xb8-600_mini-129.py

Works with any two configs, the plain one first. The steps of both run in turn, on the same images, which are
loaded before the measurement. Memory is what a step allocates: the peak of the allocator on CUDA, the peak of
live tensors on a CPU.
"""
import argparse
import statistics
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_cfg_options, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('plain', help='config without relaxations')
    parser.add_argument('relaxed', help='config with relaxations')
    parser.add_argument(
        '--rounds',
        type=int,
        default=20,
        help='number of training steps of each config (default: %(default)s)')
    parser.add_argument(
        '--num-batches', type=int, default=4, help='number of different batches (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='write the results to this JSON file')
    add_cfg_options(parser, 'train_dataloader.batch_size=2')
    args = parser.parse_args(arguments)
    if args.rounds < 1:
        parser.error(f'Expected --rounds to be at least 1, but got {args.rounds}')
    return args


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    import torch
    from mmengine.fileio import dump
    from mmengine.logging import MMLogger

    from remax_mm.analysis.training_overhead import measure_overhead
    from remax_mm.apis import load_config

    MMLogger.get_instance('benchmark').setLevel('WARNING')  # no line for each initialized weight
    plain, relaxed = (load_config(path, args.cfg_options) for path in (args.plain, args.relaxed))
    costs, overhead, difference = measure_overhead(plain, relaxed, args.rounds, args.num_batches)

    threads = f'{torch.get_num_threads()} CPU thread(s)'
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else threads
    print(f'Training step, median of {args.rounds}, {device}')
    for name, cost in costs.items():
        print(f'  {name:8} {statistics.median(cost.seconds):9.4f} s {cost.peak_memory / 2**20:10.1f} MiB')
    print(f'  ratio    {overhead.time:9.3f}   {overhead.memory:10.3f}')
    print(f'Inference: {len(difference.parameters)} parameters and {len(difference.calls)} module calls '
          f'differ, largest difference of the outputs {difference.outputs:g}')
    if args.out:
        numbers = dict(
            configs=dict(plain=args.plain, relaxed=args.relaxed),
            device=device,
            costs={
                name: cost._asdict()
                for name, cost in costs.items()
            },
            overhead=overhead._asdict(),
            inference=difference._asdict())
        dump(numbers, args.out, indent=2)


if __name__ == '__main__':
    main()
