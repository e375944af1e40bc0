"""Statistics of several variants of a model, each trained with the same seeds."""
import math
import statistics
from typing import Mapping, NamedTuple, Optional, Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
PRECISION = 0.8
"""Wanted half width of the confidence interval of a difference, in percent of PQ."""


class Spread(NamedTuple):
    """Mean, sample standard deviation (NaN for one run), lowest and highest of some runs."""
    runs: int
    mean: float
    deviation: float
    low: float
    high: float


class PairedDifference(NamedTuple):
    """Differences of pairs of runs with the same seed.

    Attributes:
        pairs: Number of pairs.
        mean: Mean difference.
        deviation: Sample standard deviation of the differences, NaN for one pair.
        low, high: Bounds of the 95 % confidence interval of the mean difference by Student's t distribution,
            NaN for one pair.
        pairs_needed: Pairs for an interval of plus or minus :data:`PRECISION` with this standard deviation;
            None for one pair.
    """
    pairs: int
    mean: float
    deviation: float
    low: float
    high: float
    pairs_needed: Optional[int]


def measure_spread(values: Sequence[float]) -> Spread:
    """
    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError('Expected at least one run, but got none')
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return Spread(len(values), statistics.mean(values), deviation, min(values), max(values))


def compare_pairs(values: Mapping[int, float], baseline: Mapping[int, float]) -> PairedDifference:
    """Difference of a variant to the baseline, over the seeds of both.

    Args:
        values, baseline: By seed.

    Raises:
        ValueError: they have no seed in common.
    """
    seeds = [seed for seed in values if seed in baseline]
    if not seeds:
        raise ValueError(f'Expected a seed of both variants, but got {list(values)} and {list(baseline)}')
    spread = measure_spread([values[seed] - baseline[seed] for seed in seeds])
    if len(seeds) == 1:
        return PairedDifference(1, spread.mean, math.nan, math.nan, math.nan, None)
    error = spread.deviation / math.sqrt(len(seeds))
    low, high = spread.mean, spread.mean  # where all differences are equal
    if error > 0:
        low, high = stats.t.interval(CONFIDENCE, len(seeds) - 1, spread.mean, error)
    needed = count_needed_pairs(spread.deviation)
    return PairedDifference(len(seeds), spread.mean, spread.deviation, float(low), float(high), needed)


def count_needed_pairs(deviation: float, precision: float = PRECISION) -> int:
    """Smallest number of pairs whose 95 % confidence interval is at most plus or minus ``precision``.

    Args:
        deviation: Sample standard deviation of the differences, as it is expected again.
        precision: Wanted half width, in the same unit.
    """
    # The factor of the t distribution is largest for two pairs.
    most = 2 + math.ceil((stats.t.ppf((1 + CONFIDENCE) / 2, 1) * deviation / precision)**2)
    pairs = np.arange(2, most + 1)
    half_widths = stats.t.ppf((1 + CONFIDENCE) / 2, pairs - 1) * deviation / np.sqrt(pairs)
    return int(pairs[half_widths <= precision][0])
