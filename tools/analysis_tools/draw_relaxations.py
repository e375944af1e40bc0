"""Draw what ReMask and ReClass do to the masks and to the class targets of a training step.

    python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic
    python tools/analysis_tools/draw_relaxations.py configs/mini/remax_mnv3-s_1xb8-1k_mini-129.py \
        --checkpoint work_dirs/demo/iter_1000.pth

Writes remask.png and reclass.png, for the slots of one training image whose masks ReMask changes most. No
weights are updated. docs/concepts.md explains the pictures.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_cfg_options, exit_on_error, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('config', help='config of a model with ReMask')
    parser.add_argument('--checkpoint', help='file or URL (default: the weights that training starts from)')
    parser.add_argument('--num-slots', type=int, default=3, help='most slots to draw (default: %(default)s)')
    parser.add_argument(
        '--seed', type=int, default=0, help='random seed, which selects the image (default: %(default)s)')
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('work_dirs/relaxations'),
        help='folder of the pictures (default: %(default)s)')
    add_cfg_options(parser, 'train_dataloader.batch_size=2')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)

    from mmengine.logging import MMLogger

    from remax_mm.analysis.relaxation_pictures import draw_relaxations
    from remax_mm.apis import load_config

    MMLogger.get_instance('draw_relaxations').setLevel('WARNING')  # no line for each initialized weight
    with exit_on_error():
        config = load_config(args.config, args.cfg_options)
        files = draw_relaxations(config, args.out_dir, args.checkpoint, args.num_slots, args.seed)
    print(f'Wrote {" and ".join(map(str, files))}')


if __name__ == '__main__':
    main()
