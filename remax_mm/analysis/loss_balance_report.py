"""The loss balance of several runs as JSON and as histograms."""
from pathlib import Path
from typing import Dict, Mapping, NamedTuple, Optional, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.fileio import dump
from torch import Tensor

from .loss_balance import IMBALANCED, LossParts, summarize_loss_balance

Balances = Mapping[str, Mapping[str, LossParts]]
"""By run and by output."""


class BalanceRun(NamedTuple):
    """A config file and its checkpoint, None for the weights that training starts from."""
    config: str
    checkpoint: Optional[str]


def name_runs(configs: Sequence[str],
              checkpoints: Optional[Sequence[str]] = None,
              labels: Optional[Sequence[str]] = None) -> Dict[str, BalanceRun]:
    """The runs by their names.

    Args:
        configs: Config files.
        checkpoints: File or URL for each config; ``none`` for the weights that training starts from.
        labels: Names. By default, that of the config and that of the checkpoint.

    Raises:
        ValueError: a list has another length than that of the configs, or a name occurs twice.
        FileNotFoundError: a config or a checkpoint does not exist.
    """
    for name, given in (('--checkpoints', checkpoints), ('--labels', labels)):
        if given is not None and len(given) != len(configs):
            raise ValueError(f'Expected {name} to have one entry for each of the {len(configs)} configs, '
                             f'but got {len(given)}')
    runs = [
        BalanceRun(config, None if checkpoint == 'none' else checkpoint)
        for config, checkpoint in zip(configs, checkpoints or ['none'] * len(configs))
    ]
    names = labels or [
        Path(run.config).stem + (f' {Path(run.checkpoint).stem}' if run.checkpoint else ', untrained')
        for run in runs
    ]
    if len(set(names)) < len(names):
        raise ValueError(f'Expected runs with different names, but got {names}: set them with --labels')
    for path in (path for run in runs for path in run if path is not None and '://' not in path):
        if not Path(path).is_file():
            raise FileNotFoundError(f'Expected a config or checkpoint at {path}, but there is none.')
    return dict(zip(names, runs))


def write_loss_balance(balances: Balances, out_dir: Path) -> None:
    """Write ``loss_balance.json``, with the numbers of every image, and ``loss_balance.png``.

    Args:
        balances: Loss parts by run and by output.
        out_dir: Folder, created if it does not exist.
    """
    edges = logarithmic_edges([parts.ratio for outputs in balances.values() for parts in outputs.values()])
    out_dir.mkdir(parents=True, exist_ok=True)
    dump(balance_as_dict(balances, edges), out_dir / 'loss_balance.json', indent=2)
    draw_balance(balances, edges, out_dir / 'loss_balance.png')


def logarithmic_edges(ratios: Sequence[Tensor], bins_per_decade: int = 10) -> np.ndarray:
    """Edges of bins with equal width on a logarithmic scale, from a power of ten to a power of ten.

    Args:
        ratios: (B,) each. Only finite values above 0 count; without any, the range is 1 to 10.
    """
    values = torch.cat([ratio.flatten().double().cpu() for ratio in ratios])
    exponents = values[values.isfinite() & (values > 0)].log10()
    low = int(exponents.min().floor()) if len(exponents) else 0
    high = max(int(exponents.max().ceil()), low + 1) if len(exponents) else 1
    return np.logspace(low, high, (high - low) * bins_per_decade + 1)


def balance_as_dict(balances: Balances, edges: np.ndarray) -> dict:
    """A summary, a histogram and the numbers of every image for each output of each run, for JSON."""

    def numbers(parts: LossParts) -> dict:
        ratio = parts.ratio.cpu().numpy()
        return dict(
            summary=summarize_loss_balance(parts),
            histogram=np.histogram(ratio[~np.isnan(ratio)], edges)[0].tolist(),
            false_positive=parts.false_positive.tolist(),
            false_negative=parts.false_negative.tolist())

    runs = {
        run: {
            name: numbers(parts)
            for name, parts in outputs.items()
        }
        for run, outputs in balances.items()
    }
    return dict(ratio_edges=edges.tolist(), runs=runs)


def draw_balance(balances: Balances, edges: np.ndarray, path: Path) -> None:
    """Draw histograms of the ratio: one panel per supervised output, with all runs."""
    names = list(dict.fromkeys(n for outputs in balances.values() for n in outputs if '.' not in n))
    figure = Figure(figsize=(8, 2.2 * len(names)), layout='constrained')
    axes = figure.subplots(len(names), 1, sharex=True, squeeze=False)
    for axis, name in zip(axes[:, 0], names):
        for label, outputs in balances.items():
            if name in outputs:
                axis.hist(outputs[name].ratio.cpu().numpy(), edges, alpha=0.5, label=label)
        axis.axvline(IMBALANCED, color='black', linestyle=':')
        axis.set(xscale='log', ylabel='images', title='all outputs' if name == 'all' else f'output {name}')
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc='outside upper left', fontsize='small')
    axes[-1, 0].set_xlabel('false positive loss / false negative loss')
    figure.savefig(path, dpi=120)
