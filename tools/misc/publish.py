"""Publish a model: one file with the weights for inference, the config and the classes.

    python tools/misc/publish.py CONFIG CHECKPOINT remax-t.safetensors

writes remax-t-<start of its SHA-256>.safetensors, or .pth. `PanopticInferencer` and the demos take the file
without a config, on any machine, and loading it runs no code.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_cfg_options, exit_on_error, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('config', help='config file, or name of a model')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('out', type=Path, help='file to write, ending in .safetensors or .pth')
    add_cfg_options(parser)
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.apis import PanopticInferencer

    with exit_on_error():
        inferencer = PanopticInferencer(args.config, args.checkpoint, 'cpu', args.cfg_options)
        path = inferencer.publish(args.out)
    print(f'Wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)')


if __name__ == '__main__':
    main()
