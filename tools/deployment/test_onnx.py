#!/usr/bin/env python
"""Evaluate an exported model with the data and the metrics of a config.

    python tools/deployment/test_onnx.py CONFIG model.onnx

The file runs on the CPU with onnxruntime, one image at a time.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_cfg_options, exit_on_error, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('model', type=Path, help='ONNX file, or the folder that has it')
    parser.add_argument('--work-dir', help='folder of the logs (default: work_dirs/<config name>)')
    parser.add_argument('--out', type=Path, help='write the metrics to this JSON file')
    parser.add_argument('--threads', type=int, default=0, help='threads of onnxruntime (default: all cores)')
    add_cfg_options(parser, 'test_evaluator.classwise=True')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from mmengine.fileio import dump

    from remax_mm.apis.build_runner import build_runner
    from remax_mm.apis.onnx_config import use_onnx
    from remax_mm.apis.run_config import load_run_config
    with exit_on_error():
        config = load_run_config(args.config, args.cfg_options, args.work_dir)
        runner = build_runner(use_onnx(config, args.model, args.threads))
    metrics = runner.test()
    if args.out:
        dump(metrics, args.out, file_format='json', indent=2)


if __name__ == '__main__':
    main()
