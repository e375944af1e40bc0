"""Start a web page that segments photos.

    python demo/web_demo.py                        # the model of `make demo`
    python demo/web_demo.py MODEL CHECKPOINT
    python demo/web_demo.py remax-t-0a1b2c3d.safetensors

MODEL is a config, the name of a model, or a file of tools/misc/publish.py, which needs no checkpoint. Only
this machine can reach the page, unless --host says otherwise.
"""
import argparse
from typing import Optional, Sequence

from remax_mm.apis.command_line import (add_cfg_options, add_model_arguments, exit_on_error, make_parser,
                                        require_checkpoint)


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_model_arguments(parser, default='the model of `make demo` in work_dirs/demo')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen at (default: %(default)s)')
    parser.add_argument('--port', type=int, help='port (default: the first free one from 7860 on)')
    parser.add_argument(
        '--max-megabytes', type=float, default=20., help='largest size of a photo (default: %(default)s)')
    parser.add_argument(
        '--max-megapixels', type=float, default=50., help='most pixels of a photo (default: %(default)s)')
    parser.add_argument(
        '--seconds', type=float, default=60., help='time limit for a photo (default: %(default)s)')
    add_cfg_options(parser)
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.apis import PanopticInferencer, find_training
    from remax_mm.apis.web_page import Limits, WebPage

    with exit_on_error():
        require_checkpoint(args)
        model, checkpoint = (args.model, args.checkpoint) if args.model else find_training('work_dirs/demo')
        inferencer = PanopticInferencer(model, checkpoint, args.device, args.cfg_options)
    limits = Limits(
        num_bytes=int(args.max_megabytes * 2**20),
        num_pixels=int(args.max_megapixels * 1e6),
        seconds=args.seconds)
    page = WebPage(inferencer, limits, args.pred_score_thr)
    try:
        with exit_on_error():
            page.launch(args.host, args.port)
    finally:
        page.close()


if __name__ == '__main__':
    main()
