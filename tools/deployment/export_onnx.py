#!/usr/bin/env python
"""Export a trained model to ONNX, and check it against PyTorch.

A folder that runs without remax_mm and torch:

    python tools/deployment/export_onnx.py CONFIG CHECKPOINT --out deployed
    python deployed/remax_runtime.py photo.jpg --out-dir out

The ONNX file alone: `--out model.onnx`. Class and mask logits instead of what a host needs to merge the
masks: `--logits`.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_cfg_options, exit_on_error, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('config', type=Path, help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--out', required=True, type=Path, help='ONNX file (*.onnx), or a folder')
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='size of the network input; images are resized to fit into it (default: that of the config)')
    end = parser.add_mutually_exclusive_group()
    end.add_argument(
        '--with-fusion',
        action='store_true',
        help='end with the input of the merging of masks (default: this, unless --logits is given)')
    end.add_argument('--logits', action='store_true', help='end the graph with class and mask logits')
    parser.add_argument('--dtype', choices=['fp32', 'fp16'], default='fp32', help='(default: %(default)s)')
    parser.add_argument(
        '--opset', type=int, default=20, help='version of the operators (default: %(default)s)')
    parser.add_argument(
        '--check-images',
        nargs='+',
        type=Path,
        default=[],
        metavar='IMAGE',
        help='compare with PyTorch on these images too, besides drawn ones')
    add_cfg_options(parser)
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.apis.export_model import export_model
    with exit_on_error():
        file, agreements = export_model(
            args.config,
            args.checkpoint,
            args.out,
            size=None if args.size is None else tuple(args.size),
            logits=args.logits,
            dtype=args.dtype,
            opset=args.opset,
            check_images=args.check_images,
            cfg_options=args.cfg_options)
    print(f'Wrote {file} ({file.stat().st_size / 1e6:.1f} MB)')
    print(f'Equal to PyTorch on {len(agreements)} images: best slots of at least '
          f'{min(a.best_slots for a in agreements):.3%} and segments of at least '
          f'{min(a.panoptic_map for a in agreements):.3%} of the pixels')


if __name__ == '__main__':
    main()
