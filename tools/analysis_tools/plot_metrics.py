"""Plot the losses and the metrics of trainings by iteration, and PQ per class.

    python tools/analysis_tools/plot_metrics.py work_dirs/a work_dirs/b --out-dir work_dirs/curves

Reads `<time>/vis_data/scalars.json` of a work dir, where a resumed training has several, or a single file.
Writes curves.png, one panel per metric with a line for each run, and classes.png, the PQ per class of the
last evaluation. It is logged if the training has `--cfg-options val_evaluator.classwise=True`. The file of
`tools/test.py --out` with `test_evaluator.classwise=True` can be plotted, too.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import exit_on_error, make_parser


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN', help='work dirs, or JSON files')
    parser.add_argument(
        '--keys',
        nargs='+',
        metavar='METRIC',
        help='metrics to draw, such as loss d0.loss_cls PQ (default: losses of the final prediction, '
        'learning rate and quality)')
    parser.add_argument(
        '--names', nargs='+', help='names of the runs (default: those of the folders or files)')
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('work_dirs/curves'),
        help='folder of the pictures (default: %(default)s)')
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.analysis.metric_curves import write_curves
    from remax_mm.analysis.metric_logs import read_runs

    with exit_on_error():
        files = write_curves(read_runs(args.runs, args.names), args.out_dir, args.keys)
    print(f'Wrote {" and ".join(map(str, files))}')


if __name__ == '__main__':
    main()
