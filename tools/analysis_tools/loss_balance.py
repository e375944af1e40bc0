"""Compare false positives and false negatives in the mask loss of models, as in Figs. 1 and 6 of ReMaX.

    python tools/analysis_tools/loss_balance.py CONFIG CONFIG --checkpoints A.pth B.pth

Takes models with a mask-ID loss, and mmdet's MaskFormer and Mask2Former, plain or relaxed;
docs/loss_balance.md says what is counted. Without --checkpoints the models are those that training starts
from. The images are those of training. Writes loss_balance.json, with the numbers of every image, and
loss_balance.png.
"""
import argparse
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import matplotlib
import numpy as np
from mmengine.config import Config, DictAction
from mmengine.fileio import dump
from mmengine.logging import MMLogger

import remax_mm  # noqa: F401  (makes mmdet importable and registers the models)
from remax_mm.analysis import (LossParts, format_loss_balance, logarithmic_edges, measure_loss_balance,
                               summarize_loss_balance)
from remax_mm.analysis.loss_balance import IMBALANCED

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config files, one for each run')
    parser.add_argument(
        '--checkpoints',
        nargs='+',
        help='one for each config; `none` for the weights that training starts from')
    parser.add_argument(
        '--labels', nargs='+', help='names of the runs (default: of the config, and of the checkpoint)')
    parser.add_argument('--num-batches', type=int, default=50, help='at most so many (default: 50)')
    parser.add_argument('--seed', type=int, default=0, help='seed of images and weights (default: 0)')
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/loss_balance'))
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='settings to change in every config')
    return parser.parse_args(arguments)


def check_runs(args: argparse.Namespace) -> Dict[str, tuple]:
    """Config and checkpoint of each run by its label.

    Raises:
        ValueError: a list of another length than that of the configs, or a label twice.
        FileNotFoundError: there is no such config or checkpoint.
    """
    checkpoints = args.checkpoints or ['none'] * len(args.configs)
    checkpoints = [None if checkpoint == 'none' else checkpoint for checkpoint in checkpoints]
    labels = args.labels or [
        Path(config).stem + (f' {Path(checkpoint).stem}' if checkpoint else ', untrained')
        for config, checkpoint in zip(args.configs, checkpoints)
    ]
    for name, given in (('--checkpoints', checkpoints), ('--labels', labels)):
        if len(given) != len(args.configs):
            raise ValueError(
                f'Expected {name} to have one entry for each of the {len(args.configs)} configs, '
                f'but got {len(given)}')
    if len(set(labels)) < len(labels):
        raise ValueError(f'Expected runs of different names, but got {labels}: name them by --labels')
    for path in args.configs + [c for c in checkpoints if c is not None and '://' not in c]:
        if not Path(path).is_file():
            raise FileNotFoundError(f'Expected a config or checkpoint at {path}, but there is none.')
    return dict(zip(labels, zip(args.configs, checkpoints)))


def to_numbers(runs: Dict[str, Dict[str, LossParts]], edges: np.ndarray) -> dict:
    """What the JSON file holds: of each output of each run a summary, a histogram, and every image."""

    def numbers(parts: LossParts) -> dict:
        ratio = parts.ratio.cpu().numpy()
        return dict(
            summary=summarize_loss_balance(parts),
            histogram=np.histogram(ratio[~np.isnan(ratio)], edges)[0].tolist(),
            false_positive=parts.false_positive.tolist(),
            false_negative=parts.false_negative.tolist())

    outputs = {run: {name: numbers(parts) for name, parts in found.items()} for run, found in runs.items()}
    return dict(ratio_edges=edges.tolist(), runs=outputs)


def draw(runs: Dict[str, Dict[str, LossParts]], edges: np.ndarray, path: Path) -> None:
    """One panel for each supervised output, all runs in each."""
    names: List[str] = list(dict.fromkeys(n for found in runs.values() for n in found if '.' not in n))
    figure, axes = plt.subplots(
        len(names), 1, figsize=(8, 2.2 * len(names)), sharex=True, squeeze=False, layout='constrained')
    for axis, name in zip(axes[:, 0], names):
        for label, found in runs.items():
            if name in found:
                axis.hist(found[name].ratio.cpu().numpy(), edges, alpha=0.5, label=label)
        axis.axvline(IMBALANCED, color='black', linestyle=':')
        axis.set(xscale='log', ylabel='images', title='all outputs' if name == 'all' else f'output {name}')
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc='outside upper left', fontsize='small')
    axes[-1, 0].set_xlabel('false positive loss / false negative loss')
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    MMLogger.get_instance('loss_balance').setLevel('WARNING')  # not a line for each initialized weight
    runs = {}
    for label, (path, checkpoint) in check_runs(args).items():
        config = Config.fromfile(path)
        if args.cfg_options is not None:
            config.merge_from_dict(args.cfg_options)
        runs[label] = measure_loss_balance(config, checkpoint, args.num_batches, args.seed)

    edges = logarithmic_edges([parts.ratio for found in runs.values() for parts in found.values()])
    args.out_dir.mkdir(parents=True, exist_ok=True)
    dump(to_numbers(runs, edges), args.out_dir / 'loss_balance.json', indent=2)
    draw(runs, edges, args.out_dir / 'loss_balance.png')
    print(format_loss_balance(runs))
    print(f'Numbers of every image and histograms: {args.out_dir}/loss_balance.json, loss_balance.png')


if __name__ == '__main__':
    main()
