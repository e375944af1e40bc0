"""Statistics of runs, by hand."""
import math

import pytest

from remax_mm.analysis.comparison import compare_pairs, count_needed_pairs, measure_spread


def test_measure_spread__by_hand():
    spread = measure_spread([1., 2., 6.])
    assert (spread.runs, spread.mean, spread.low, spread.high) == (3, 3, 1, 6)
    assert spread.deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert math.isnan(measure_spread([5.]).deviation)
    with pytest.raises(ValueError, match='at least one run'):
        measure_spread([])


def test_compare_pairs__by_hand():
    """Differences 1, 2 and 6: mean 3, deviation sqrt(7), standard error sqrt(7 / 3).

    The printed tables of Student's t have 4.303 for two degrees of freedom and 95 %, both sides.
    """
    difference = compare_pairs({0: 11., 1: 22., 2: 36., 7: 99.}, {2: 30., 0: 10., 1: 20.})
    assert difference.pairs == 3 and difference.mean == pytest.approx(3)
    assert difference.deviation == pytest.approx(math.sqrt(7))
    half = 4.303 * math.sqrt(7 / 3)
    assert (difference.low, difference.high) == pytest.approx((3 - half, 3 + half), abs=1e-3)


def test_compare_pairs__shared_noise_cancels():
    """Runs of a seed differ by 1, seeds by much more; unpaired, the interval would be wide."""
    baseline = {0: 60., 1: 70., 2: 50.}
    difference = compare_pairs({seed: value + 1 for seed, value in baseline.items()}, baseline)
    assert difference == (3, 1, 0, 1, 1, 2)


def test_compare_pairs__one_pair_and_none():
    difference = compare_pairs({3: 5., 4: 1.}, {3: 4.})
    assert difference.pairs == 1 and difference.mean == 1 and difference.pairs_needed is None
    assert all(map(math.isnan, (difference.deviation, difference.low, difference.high)))
    with pytest.raises(ValueError, match=r'a seed of both variants, but got \[1\] and \[2\]'):
        compare_pairs({1: 1.}, {2: 1.})


@pytest.mark.parametrize(
    'deviation, precision, factor, pairs',
    [
        (0.0, 0.8, 12.706, 2),  # no interval from less than two pairs
        (1.0, 0.8, 2.306, 9),  # 8 degrees of freedom: 2.306 / 3 = 0.769; with 8 pairs 2.365 / 2.828 = 0.836
        (2.5, 0.8, 2.023, 40),  # 39 degrees of freedom: 0.800; with 39 pairs 2.024 * 2.5 / 6.245 = 0.810
    ])
def test_count_needed_pairs__by_printed_tables(deviation, precision, factor, pairs):
    assert count_needed_pairs(deviation, precision) == pairs
    assert factor * deviation / math.sqrt(pairs) <= precision
