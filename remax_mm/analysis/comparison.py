"""Panoptic quality of several variants of a model, each trained with several seeds."""
import json
import math
import statistics
from pathlib import Path
from typing import Dict, Mapping, NamedTuple, Sequence, Union

QUALITIES = ('PQ', 'PQ_th', 'PQ_st')
PREFIX = 'coco_panoptic/'

Metrics = Mapping[str, float]


class Spread(NamedTuple):
    """Mean, sample standard deviation (NaN for one run), lowest and highest of some runs."""
    runs: int
    mean: float
    deviation: float
    low: float
    high: float


def measure_spread(values: Sequence[float]) -> Spread:
    """
    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError('Expected at least one run, but got none')
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return Spread(len(values), statistics.mean(values), deviation, min(values), max(values))


def read_final_metrics(work_dir: Union[str, Path], iterations: int) -> Dict[str, float]:
    """Panoptic quality in percent of the final validation of the latest training in a work dir.

    Args:
        work_dir: Folder with mmengine's ``<time>/vis_data/scalars.json``, one JSON object per line.
        iterations: Number of iterations of the training.

    Returns:
        ``PQ``, ``PQ_th`` and ``PQ_st``.

    Raises:
        FileNotFoundError: there is no log.
        ValueError: the latest training was not validated after its last iteration.
    """
    logs = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not logs:
        raise FileNotFoundError(f'Expected <time>/vis_data/scalars.json in {work_dir}, but there is none.')
    lines = [json.loads(line) for line in logs[-1].read_text().splitlines() if line.strip()]
    found = [line for line in lines if f'{PREFIX}PQ' in line and line.get('step') == iterations]
    if not found:
        raise ValueError(f'Expected {PREFIX}PQ of iteration {iterations} in {logs[-1]}, but there is none')
    return {quality: found[-1][f'{PREFIX}{quality}'] for quality in QUALITIES}


def compare_runs(runs: Mapping[str, Mapping[int, Metrics]]) -> Dict[str, Dict[str, Spread]]:
    """Spread of each quality over the seeds of each variant; variants without a run are left out.

    Args:
        runs: Metrics by variant and seed.
    """
    return {
        variant: {
            quality: measure_spread([metrics[quality] for metrics in seeds.values()])
            for quality in QUALITIES
        }
        for variant, seeds in runs.items() if seeds
    }


def format_comparison(runs: Mapping[str, Mapping[int, Metrics]]) -> str:
    """A Markdown table: mean ± sample standard deviation (lowest to highest) of each variant."""
    rows = [('variant', 'runs', *QUALITIES), ('---', ) * (2 + len(QUALITIES))]
    spreads = compare_runs(runs)
    for variant, seeds in runs.items():
        cells = [_cell(spreads[variant][quality]) if seeds else '–' for quality in QUALITIES]
        rows.append((variant, str(len(seeds)), *cells))
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def _cell(spread: Spread) -> str:
    if spread.runs == 1:
        return f'{spread.mean:.2f}'
    return f'{spread.mean:.2f} ± {spread.deviation:.2f} ({spread.low:.2f} to {spread.high:.2f})'
