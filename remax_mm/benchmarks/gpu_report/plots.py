"""Pictures of the report, from the stored records."""
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

from .records import Record
from .step_shares import SECTIONS

COLORS = dict(float32='tab:blue', float16='tab:orange', bfloat16='tab:green')


def plot_training(records: Sequence[Record], path: Path) -> None:
    """Images per second and peak memory by batch size: one column of panels for each model."""
    models = list(dict.fromkeys(record.options['model'] for record in records))
    figure, axes = _figure(2, len(models), (3.2 * len(models), 5.5))
    for record in records:
        column = models.index(record.options['model'])
        points = record.result['points']
        sizes = [point['batch_size'] for point in points]
        compiled = record.options['compiled']
        style = dict(
            color=COLORS[record.options['precision']],
            linestyle='--' if compiled else '-',
            marker='s' if compiled else 'o',
            fillstyle='none' if compiled else 'full',
            label=f'{record.options["precision"]}{", compiled" if compiled else ""}')
        speeds, memories = axes[0][column], axes[1][column]
        speeds.plot(sizes, [point['images_per_second'] for point in points], **style)
        memories.plot(sizes, [point['peak_memory'] / 2**30 for point in points], **style)
    for column, model in enumerate(models):
        axes[0][column].set_title(model, fontsize='medium')
        axes[1][column].set_xlabel('batch size')
        for row in (0, 1):
            axes[row][column].set_xscale('log', base=2)
            axes[row][column].xaxis.set_major_formatter('{x:.0f}')
            axes[row][column].set_ylim(bottom=0)
    axes[0][0].set_ylabel('images per second')
    axes[1][0].set_ylabel('peak memory, GiB')
    axes[0][0].legend(fontsize='small')
    _save(figure, path)


def plot_inference(records: Sequence[Record], path: Path) -> None:
    """Milliseconds of the network and of the merging, by model and engine."""
    bars = {
        'network': [1e3 * record.result['network']['median'] for record in records],
        'merging':
        [1e3 * (record.result['whole']['median'] - record.result['network']['median']) for record in records]
    }
    _plot_bars([record.name for record in records], bars, 'milliseconds per image, median', path)


def plot_shares(records: Sequence[Record], path: Path) -> None:
    """Percentages of a training step."""
    bars = {
        name: [100 * record.result['seconds'][name] / record.result['step'] for record in records]
        for name in SECTIONS
    }
    _plot_bars([record.name for record in records], bars, 'share of a training step, %', path)


def plot_mini(records: Sequence[Record], path: Path) -> None:
    """The loss by iteration."""
    figure, axes = _figure(1, 1, (6, 3.5))
    for record in records:
        axes[0][0].plot(*zip(*record.result['loss']), marker='.', label=record.name)
    axes[0][0].set_xlabel('iteration')
    axes[0][0].set_ylabel('loss')
    axes[0][0].legend(fontsize='small')
    _save(figure, path)


def _plot_bars(names: Sequence[str], bars: Dict[str, List[float]], label: str, path: Path) -> None:
    """Horizontal bars of stacked parts."""
    figure, axes = _figure(1, 1, (9, max(1.2 + 0.3 * len(names), 2.5)))
    axis, left = axes[0][0], [0.] * len(names)
    for part, widths in bars.items():
        axis.barh(names, widths, left=left, label=part)
        left = [start + width for start, width in zip(left, widths)]
    axis.invert_yaxis()
    axis.set_xlabel(label)
    axis.legend(fontsize='small', loc='upper left', bbox_to_anchor=(1, 1))
    _save(figure, path)


def _figure(rows: int, columns: int, size: Any) -> Any:
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    return pyplot.subplots(rows, columns, figsize=size, squeeze=False)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


PLOTS: Dict[str, Callable[[Sequence[Record], Path], None]] = dict(
    training=plot_training,
    inference=plot_inference,
    mask2former=plot_training,
    shares=plot_shares,
    mini=plot_mini)
