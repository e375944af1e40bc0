"""Time and memory of training relative to an older version of this package, or to another model.

    python tools/analysis_tools/benchmark_training.py --what step
    python tools/analysis_tools/benchmark_training.py --what step --side 640 \
        --against configs/mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py
    python tools/analysis_tools/benchmark_training.py --what criterion

The older version is checked out into a temporary folder. Processes of both versions run in turns, on the
same drawn images or random outputs. Time is CPU time, or wall time on a GPU; memory is the peak of the
tensors that are created. Both include the backward pass.

`step` is the whole training step of a config, with the same initial weights in both versions and a learning
rate of 1e-6, as at the start of a warm-up. `criterion` is the losses alone: all of them on the seven outputs
of kMaX-DeepLab, and each of them on the final output.
"""
import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from remax_mm.apis.command_line import add_cfg_options, exit_on_error, make_parser

METHODS = ('kmax', 'remax')
CONFIGS = ('configs/kmax/kmax_r50_8xb8-150k_coco-641.py', 'configs/remax/remax-m_r50_8xb8-150k_coco-641.py')
WARM_UP = {'optim_wrapper.optimizer.lr': 1e-6}


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        '--what',
        choices=['step', 'criterion'],
        default='step',
        help='what is measured (default: %(default)s)')
    parser.add_argument('--commit', default='55d733f', help='the older version (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=1, help='number of images (default: %(default)s)')
    parser.add_argument(
        '--segments', nargs='+', type=int, help='numbers of segments of an image (default: 20; 5 20 80)')
    parser.add_argument(
        '--rounds', type=int, default=5, help='number of processes of each version (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='number of CPU threads (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='write the results to this JSON file')
    step = parser.add_argument_group('step')
    step.add_argument(
        '--configs',
        nargs='+',
        default=CONFIGS,
        help='config files that both versions have (default: kMaX-DeepLab and ReMaX-M, crop 641)')
    step.add_argument(
        '--num-steps', type=int, default=3, help='number of steps in a process (default: %(default)s)')
    step.add_argument(
        '--against', help='config file of this version to compare with, instead of the older version')
    step.add_argument('--side', type=int, help='height and width of the images (default: those of the crop)')
    step.add_argument('--memory-by-module', action='store_true', help='what each module keeps for backward')
    add_cfg_options(step, 'model.backbone.with_cp=True')
    criterion = parser.add_argument_group('criterion')
    criterion.add_argument(
        '--methods',
        nargs='+',
        choices=METHODS,
        default=METHODS,
        help='whose losses are measured (default: kmax remax)')
    criterion.add_argument('--crop', type=int, default=641, help='height and width (default: %(default)s)')
    criterion.add_argument(
        '--num-slots', type=int, default=128, help='number of mask slots (default: %(default)s)')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from mmengine.fileio import dump

    from remax_mm.analysis.version_comparison import REPOSITORY, checked_out

    tree = nullcontext(REPOSITORY) if args.against else checked_out(args.commit)
    with exit_on_error(), tree as old_tree:
        compare = compare_all_steps if args.what == 'step' else compare_all_criteria
        print(f'Relative to {args.against or args.commit}: batch size {args.batch_size}, medians of '
              f'{args.rounds} rounds, {args.threads} CPU thread(s)')
        results = compare(args, old_tree)
    if args.out:
        dump(results, args.out, indent=2)


def compare_all_steps(args: argparse.Namespace, old_tree: Path) -> Dict[str, Any]:
    """Compare each config and number of segments, and print a table."""
    from remax_mm.analysis.step_cost import StepSettings
    from remax_mm.analysis.version_comparison import compare_steps, format_kept_memory, format_steps

    comparisons = {}
    for config in args.configs:
        for num_segments in args.segments or [20]:
            plain = StepSettings(config, WARM_UP, args.batch_size, num_segments, side=args.side)
            new = plain._replace(options={**WARM_UP, **(args.cfg_options or {})})
            old = plain._replace(config=args.against or config)
            case = f'{Path(config).stem}, {num_segments} segments'
            comparisons[case] = compare_steps(old_tree, new, old, args.num_steps, args.rounds, args.threads)
    print(format_steps(comparisons))
    if args.memory_by_module:
        for case, comparison in comparisons.items():
            print(f'\nKept for the backward pass, {case}\n{format_kept_memory(comparison)}')
    return {
        case:
        dict(
            new=comparison.new._asdict(),
            old=comparison.old._asdict(),
            time=comparison.time,
            memory=comparison.memory,
            loss_difference=comparison.loss_difference)
        for case, comparison in comparisons.items()
    }


def compare_all_criteria(args: argparse.Namespace, old_tree: Path) -> Dict[str, Any]:
    """Compare the losses of each method and number of segments, and print a table."""
    from remax_mm.analysis.criterion_cost import CriterionSettings
    from remax_mm.analysis.version_comparison import compare_criteria, format_comparison

    comparisons = {}
    for method in args.methods:
        for num_segments in args.segments or [5, 20, 80]:
            settings = CriterionSettings(
                relaxed=method == 'remax',
                num_segments=num_segments,
                side=(args.crop - 1) // 4 + 1,
                batch_size=args.batch_size,
                num_slots=args.num_slots)
            comparisons[f'{method}, {num_segments} segments'] = compare_criteria(
                old_tree, settings, args.rounds, threads=args.threads)
    print(format_comparison(comparisons))
    largest = max(comparison.loss_difference for comparison in comparisons.values())
    print(f'Largest relative difference of a loss: {largest:.2g}')
    return {case: comparison._asdict() for case, comparison in comparisons.items()}


if __name__ == '__main__':
    main()
