"""Statistics of runs, by hand."""
import json
import math

import pytest

from remax_mm.analysis.comparison import compare_runs, format_comparison, measure_spread, read_final_metrics


def test_measure_spread__by_hand():
    spread = measure_spread([1., 2., 6.])
    assert (spread.runs, spread.mean, spread.low, spread.high) == (3, 3, 1, 6)
    assert spread.deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert math.isnan(measure_spread([5.]).deviation)
    with pytest.raises(ValueError, match='at least one run'):
        measure_spread([])


def test_format_comparison__one_run_has_no_spread():
    runs = dict(a={0: dict(PQ=50.126, PQ_th=1., PQ_st=2.)}, b={})
    assert '| a | 1 | 50.13 | 1.00 | 2.00 |' in format_comparison(runs)
    assert list(compare_runs(runs)) == ['a']


def test_read_final_metrics__latest_training_and_last_iteration(tmp_path):
    with pytest.raises(FileNotFoundError, match='scalars.json'):
        read_final_metrics(tmp_path, 4)
    for time, pq in (('20260101_000000', 1.), ('20260101_000001', 2.)):
        log = tmp_path / time / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True)
        lines = [{**{f'coco_panoptic/{q}': pq for q in ('PQ', 'PQ_th', 'PQ_st')}, 'step': 4}, dict(step=5)]
        log.write_text('\n'.join(map(json.dumps, lines)) + '\n')
    assert read_final_metrics(tmp_path, 4) == dict(PQ=2., PQ_th=2., PQ_st=2.)
    with pytest.raises(ValueError, match='iteration 5'):
        read_final_metrics(tmp_path, 5)
