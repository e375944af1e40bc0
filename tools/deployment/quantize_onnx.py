#!/usr/bin/env python
"""Quantize an exported model to int8 with images of a dataset.

    python tools/deployment/quantize_onnx.py CONFIG model.onnx --out model_int8.onnx

Find the layers that must stay in float32: `--search 0.98`. Keep some: `--keep-float
network.detector.backbone.stem`. The file is evaluated with tools/deployment/test_onnx.py.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_cfg_options, exit_on_error, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('config', type=Path, help='config file, for its dataset')
    parser.add_argument('model', type=Path, help='ONNX file in float32, or the folder that has it')
    parser.add_argument('--out', required=True, type=Path, help='quantized ONNX file')
    parser.add_argument(
        '--num-images', type=int, default=32, help='images for the calibration (default: %(default)s)')
    parser.add_argument(
        '--num-compared',
        type=int,
        default=16,
        help='other images, to compare results (default: %(default)s)')
    parser.add_argument(
        '--split', choices=['train', 'val', 'test'], default='train', help='dataset (default: %(default)s)')
    parser.add_argument(
        '--keep-float', nargs='+', default=[], metavar='MODULE', help='modules that stay in float32')
    parser.add_argument(
        '--search',
        type=float,
        metavar='FRACTION',
        help='quantize only layers with which this fraction of the pixels keeps its class')
    add_cfg_options(parser)
    args = parser.parse_args(arguments)
    for name in ('num_images', 'num_compared'):
        if getattr(args, name) < 1:
            parser.error(f'Expected --{name.replace("_", "-")} of at least 1, but got {getattr(args, name)}')
    return args


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.apis.quantize_model import quantize_model
    with exit_on_error():
        result = quantize_model(
            args.config,
            args.model,
            args.out,
            num_images=args.num_images,
            num_compared=args.num_compared,
            split=args.split,
            keep_float=args.keep_float,
            search_above=args.search,
            cfg_options=args.cfg_options)
    for group, score in sorted(result.equal_pixels_of_groups.items(), key=lambda item: item[1]):
        print(f'{score:8.3%} equal pixels if only {group} is quantized')
    print(f'Wrote {result.file} ({result.file.stat().st_size / 1e6:.1f} MB)')
    print(f'{result.num_quantized} convolutions in int8, {len(result.float_layers)} in float32; '
          f'{result.equal_pixels:.2%} of the pixels keep their class')
    for layer in result.float_layers:
        print(f'  float32: {layer}')


if __name__ == '__main__':
    main()
