"""Compare false positives and false negatives in the mask loss of models, as in Figs. 1 and 6 of ReMaX.

    python tools/analysis_tools/loss_balance.py CONFIG CONFIG --checkpoints A.pth B.pth

Works with models that have a mask-ID loss, and with mmdet's MaskFormer and Mask2Former, plain or relaxed;
docs/loss_balance.md describes what is counted. Without --checkpoints the models have the weights that
training starts from. The images are the training images. Writes loss_balance.json, with the numbers of every
image, and loss_balance.png.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import add_cfg_options, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config files, one for each run')
    parser.add_argument(
        '--checkpoints',
        nargs='+',
        help='one for each config; `none` for the weights that training starts from (default: all `none`)')
    parser.add_argument(
        '--labels', nargs='+', help='names of the runs (default: names of the config and the checkpoint)')
    parser.add_argument(
        '--num-batches', type=int, default=50, help='most batches to measure (default: %(default)s)')
    parser.add_argument(
        '--seed', type=int, default=0, help='random seed of images and weights (default: %(default)s)')
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('work_dirs/loss_balance'),
        help='folder of the results (default: %(default)s)')
    add_cfg_options(parser, 'train_dataloader.batch_size=2')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from mmengine.logging import MMLogger

    from remax_mm.analysis.loss_balance import format_loss_balance
    from remax_mm.analysis.loss_balance_report import name_runs, write_loss_balance
    from remax_mm.analysis.model_loss_balance import measure_loss_balance
    from remax_mm.apis import load_config

    MMLogger.get_instance('loss_balance').setLevel('WARNING')  # no line for each initialized weight
    balances = {
        label:
        measure_loss_balance(
            load_config(run.config, args.cfg_options), run.checkpoint, args.num_batches, args.seed)
        for label, run in name_runs(args.configs, args.checkpoints, args.labels).items()
    }
    write_loss_balance(balances, args.out_dir)
    print(format_loss_balance(balances))
    print(f'Numbers of every image and histograms: {args.out_dir}/loss_balance.json, loss_balance.png')


if __name__ == '__main__':
    main()
