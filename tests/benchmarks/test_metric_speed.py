"""The two metrics on drawn scenes."""
import numpy as np
import pytest

from remax_mm.benchmarks import compare_metrics, metric_speed
from remax_mm.benchmarks.random_scenes import draw_segments


def test_compare_metrics__same_quality():
    timing = compare_metrics((180, 240), images=3, repeats=2)
    assert len(timing.ours) == len(timing.mmdet) == 2 and min(*timing.ours, *timing.mmdet) > 0
    assert timing.ratio == pytest.approx(np.median(timing.mmdet) / np.median(timing.ours))
    assert 10 < timing.quality < 99  # some segments match, others do not


def test_compare_metrics__other_quality_is_an_error(monkeypatch):
    monkeypatch.setattr(metric_speed, 'evaluate', lambda metric, _: (1., dict(PQ=len(type(metric).__name__))))
    with pytest.raises(RuntimeError, match="same quality of both metrics, but got {'PQ': 21} and {'PQ': 18}"):
        compare_metrics((64, 64), images=1, repeats=1)


def test_draw_segments__every_pixel_and_many_segments():
    drawn = draw_segments(np.random.default_rng(0), 120, 160, 30)
    assert drawn.shape == (120, 160) and drawn.min() == 1 and drawn.max() == 30
    assert len(np.unique(drawn)) > 20
