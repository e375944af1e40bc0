"""Curves of metrics over the iterations of trainings, and PQ per class, as pictures."""
from pathlib import Path
from typing import List, Optional, Sequence

import numpy as np
from matplotlib.figure import Figure

from .metric_logs import MetricLog, find_metric

COLUMNS = 3
MAX_CLASSES = 80
"""A picture with more classes shows those with the lowest and the highest values."""


def write_curves(runs: Sequence[MetricLog],
                 out_dir: Path,
                 keys: Optional[Sequence[str]] = None) -> List[Path]:
    """Write ``curves.png``, and ``classes.png`` if there are results per class.

    Args:
        runs: Logs of the runs.
        out_dir: Folder, created if it does not exist.
        keys: Metrics to draw, by their full names or without their prefix. None takes :func:`default_keys`.

    Returns:
        The files.

    Raises:
        ValueError: no run has one of the metrics, or there is nothing to draw.
    """
    keys = default_keys(runs) if keys is None else [find_metric(runs, key) for key in keys]
    has_classes = any(run.class_values('PQ') for run in runs)
    if not keys and not has_classes:
        raise ValueError(
            f'Expected metrics by iteration or PQ per class in {[run.name for run in runs]}, but '
            'there are none')
    out_dir.mkdir(parents=True, exist_ok=True)
    files = []
    if keys:
        files.append(out_dir / 'curves.png')
        draw_curves(runs, keys).savefig(files[-1], dpi=120)
    if has_classes:
        files.append(out_dir / 'classes.png')
        draw_classes(runs).savefig(files[-1], dpi=120)
    return files


def default_keys(runs: Sequence[MetricLog]) -> List[str]:
    """The loss, its terms on the final prediction, the norm of the gradient, the learning rate, and the
    quality of all classes, things and stuff; as far as a run has them."""
    known = list(dict.fromkeys(key for run in runs for key in run.curves))
    quality = [key for key in known if key.count('/') == 1 and key.split('/')[1] in ('PQ', 'PQ_th', 'PQ_st')]
    other = [key for key in known if key.endswith(('mAP', 'mIoU')) and key.count('/') == 1]
    single = [key for key in ('loss', 'grad_norm', 'lr') if key in known]
    return [*single[:1], *(key for key in known if key.startswith('loss_')), *single[1:], *quality, *other]


def draw_curves(runs: Sequence[MetricLog], keys: Sequence[str]) -> Figure:
    """One panel per metric, with a line for each run."""
    columns = min(COLUMNS, len(keys))
    rows = -(-len(keys) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.8 * rows + 0.4), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, key in zip(axes, keys):
        for number, run in enumerate(runs):
            steps, values = zip(*run.curves[key]) if key in run.curves else ((), ())
            # A marker makes a single evaluation visible.
            axis.plot(steps, values, f'C{number}', marker='.' if len(steps) < 30 else None, label=run.name)
        axis.set(title=key, xlabel='iteration')
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
    for axis in axes[len(keys):]:
        axis.set_axis_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside upper left', fontsize='small')
    return figure


def draw_classes(runs: Sequence[MetricLog], metric: str = 'PQ') -> Figure:
    """Bars of a metric per class, sorted by the first run, with a bar for each run."""
    values = {run.name: run.class_values(metric) for run in runs if run.class_values(metric)}
    first = next(iter(values.values()))
    names = sorted(
        dict.fromkeys(name for run in values.values() for name in run), key=lambda name: first.get(name, -1.))
    title = f'{metric} per class'
    if len(names) > MAX_CLASSES:
        title += f', the lowest and the highest {MAX_CLASSES // 2} of {len(names)}'
        names = [*names[:MAX_CLASSES // 2], *names[-MAX_CLASSES // 2:]]
    figure = Figure(figsize=(8, 1.2 + 0.22 * len(names) * max(1, len(values) * 0.7)), layout='constrained')
    axis = figure.subplots()
    height = 0.8 / len(values)
    for number, (name, of_class) in enumerate(values.items()):
        positions = np.arange(len(names)) - 0.4 + height * (number + 0.5)
        bars = axis.barh(positions, [of_class.get(entry, np.nan) for entry in names], height, label=name)
        axis.bar_label(bars, fmt='%.1f', fontsize='x-small', padding=2)
    axis.set(title=title, yticks=np.arange(len(names)), yticklabels=names, xlim=(0, 105))
    axis.margins(y=0.01)
    figure.legend(*axis.get_legend_handles_labels(), loc='outside upper left', fontsize='small')
    return figure
