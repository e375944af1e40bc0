"""Time and memory of a training step with and without relaxations, and proof that inference stays the same.

    python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
    python tools/analysis_tools/benchmark_relaxations.py configs/mini/mask2former_r18_1xb8-600_mini-129.py \\
        configs/mini/remax-mask2former_r18_1xb8-600_mini-129.py

Takes any two configs, the plain one first. Their steps take turns, on the same images, which are loaded
before the clock runs. Memory is what a step allocates: the allocator's peak on CUDA, the peak of live tensors
on a CPU.
"""
import argparse
import statistics
from pathlib import Path
from typing import Optional, Sequence

import torch
from mmdet.registry import MODELS
from mmengine.config import Config, DictAction
from mmengine.fileio import dump
from mmengine.logging import MMLogger
from mmengine.runner import Runner

import remax_mm  # noqa: F401  (makes mmdet importable and registers the models)
from remax_mm.analysis import (InferenceDifference, build_training_step, compare_costs, compare_inference,
                               measure_steps)


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('plain', help='config without relaxations')
    parser.add_argument('relaxed', help='config with relaxations')
    parser.add_argument('--rounds', type=int, default=20, help='training steps of each (default: 20)')
    parser.add_argument('--num-batches', type=int, default=4, help='to go round in (default: 4)')
    parser.add_argument('--out', type=Path, help='write the numbers to this JSON file')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='settings to change in both')
    args = parser.parse_args(arguments)
    if args.rounds < 1:
        parser.error(f'Expected --rounds to be at least 1, but got {args.rounds}')
    return args


def read_config(path: str, options: Optional[dict]) -> Config:
    config = Config.fromfile(path)
    config.merge_from_dict(options or {})
    return config


def check_inference(plain: Config, relaxed: Config) -> InferenceDifference:
    """On the CPU, with a batch of the first config's validation data."""
    batch = next(iter(Runner.build_dataloader(plain.val_dataloader, seed=0)))
    return compare_inference(MODELS.build(plain.model), MODELS.build(relaxed.model), batch)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    MMLogger.get_instance('benchmark').setLevel('WARNING')  # not a line for each initialized weight
    configs = {name: read_config(getattr(args, name), args.cfg_options) for name in ('plain', 'relaxed')}
    steps = {name: build_training_step(config, args.num_batches) for name, config in configs.items()}
    costs = measure_steps(steps, args.rounds)
    overhead = compare_costs(costs['plain'], costs['relaxed'])
    difference = check_inference(**configs)

    threads = f'{torch.get_num_threads()} CPU thread(s)'
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else threads
    print(f'Training step, median of {args.rounds}, {device}')
    for name, cost in costs.items():
        print(f'  {name:8} {statistics.median(cost.seconds):9.4f} s {cost.peak_memory / 2**20:10.1f} MiB')
    print(f'  ratio    {overhead.time:9.3f}   {overhead.memory:10.3f}')
    print(f'Inference: {len(difference.parameters)} parameters and {len(difference.calls)} module calls '
          f'differ, largest difference of the outputs {difference.outputs:g}')
    if args.out:
        dump(
            dict(
                configs=dict(plain=args.plain, relaxed=args.relaxed),
                device=device,
                costs={
                    name: cost._asdict()
                    for name, cost in costs.items()
                },
                overhead=overhead._asdict(),
                inference=difference._asdict()),
            args.out,
            indent=2)


if __name__ == '__main__':
    main()
