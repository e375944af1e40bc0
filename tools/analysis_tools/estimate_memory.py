"""Estimate the memory of a training without a GPU, in seconds.

    python tools/analysis_tools/estimate_memory.py configs/remax/remax-b_r50_8xb8-50k_coco-1281.py
    python tools/analysis_tools/estimate_memory.py CONFIG --batch-size 2 4 8 --amp

The step runs on tensors without data. The result is the peak of all tensors of a training, per device:
weights, state of the optimizer, and what a step adds. The caches of the allocator and the workspaces of
cuDNN are not included.
"""
import argparse
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_cfg_options, exit_on_error, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('config', help='config file of kMaX-DeepLab, ReMaX or MaX-DeepLab')
    parser.add_argument(
        '--batch-size', type=int, nargs='+', help='images per device (default: that of the config)')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='height and width of the images (default: the padded size in the config)')
    parser.add_argument('--segments', type=int, default=20, help='segments of an image (default: 20)')
    parser.add_argument('--amp', action='store_true', help='with mixed precision')
    add_cfg_options(parser, 'model.backbone.with_cp=True')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.analysis.memory_estimate import estimate_config, format_estimates
    from remax_mm.apis import load_config
    from remax_mm.apis.run_config import use_mixed_precision

    with exit_on_error():
        config = load_config(args.config, args.cfg_options)
        if args.amp:
            config = use_mixed_precision(config)
        print(format_estimates(estimate_config(config, args.batch_size, args.size, args.segments)))


if __name__ == '__main__':
    main()
