"""Print the parameters and multiply-accumulates of a config's model, part by part.

    python tools/analysis_tools/model_complexity.py configs/remax/remax-b_r50_8xb8-50k_coco-1281.py
    python tools/analysis_tools/model_complexity.py CONFIG --shape 800 1200
"""
import argparse
from typing import Optional, Sequence

from mmengine.config import Config, DictAction

from remax_mm.analysis import format_complexity, measure_config


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Parameters and multiply-accumulates of a model')
    parser.add_argument('config', help='path of a config')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='size of the image; default: what the config pads images to')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='settings to change, as key=value of dotted keys')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    config = Config.fromfile(args.config)
    if args.cfg_options is not None:
        config.merge_from_dict(args.cfg_options)
    print(format_complexity(measure_config(config, args.shape)))


if __name__ == '__main__':
    main()
