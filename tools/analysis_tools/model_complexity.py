"""Print the parameters and multiply-accumulates of a config's model, part by part.

    python tools/analysis_tools/model_complexity.py configs/remax/remax-b_r50_8xb8-50k_coco-1281.py
    python tools/analysis_tools/model_complexity.py CONFIG --shape 800 1200
"""
import argparse
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_cfg_options, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='height and width of the image (default: the padded size in the config)')
    add_cfg_options(parser, 'model.panoptic_head.transformer_decoder.num_slots=256')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.analysis.complexity import format_complexity, measure_config
    from remax_mm.apis import load_config

    print(format_complexity(measure_config(load_config(args.config, args.cfg_options), args.shape)))


if __name__ == '__main__':
    main()
