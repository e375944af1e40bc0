import json
import runpy

import numpy as np
import pytest
from mmengine.logging import MMLogger

from tests.conftest import REPOSITORY

SCRIPT = runpy.run_path(str(REPOSITORY / 'tools' / 'analysis_tools' / 'benchmark_panoptic_quality.py'))


@pytest.fixture(autouse=True)
def _mmdet_as_it_was(monkeypatch):
    from mmdet.evaluation.functional import panoptic_utils
    from mmdet.evaluation.metrics import coco_panoptic_metric
    for module in (panoptic_utils, coco_panoptic_metric):
        for name in ('panopticapi', 'VOID', 'PQStat', 'rgb2id', 'id2rgb'):
            monkeypatch.setattr(module, name, getattr(module, name, None), raising=False)
    yield
    MMLogger.get_instance('benchmark_panoptic_quality').setLevel('INFO')  # it stays the current one


def test_benchmark__both_metrics_give_the_same_quality(tmp_path, capsys):
    SCRIPT['main'](
        ['--sizes', '180x240', '--images', '3', '--repeats', '2', '--json',
         str(tmp_path / 'out.json')])
    numbers = json.loads((tmp_path / 'out.json').read_text())['180x240']
    assert len(numbers['ours']) == len(numbers['mmdet']) == 2
    assert numbers['ratio'] == pytest.approx(np.median(numbers['mmdet']) / np.median(numbers['ours']))
    assert 10 < numbers['quality'] < 99  # neither perfect nor lost
    assert '180x240' in capsys.readouterr().out


def test_draw_segments__every_pixel_and_many_segments():
    drawn = SCRIPT['draw_segments'](np.random.default_rng(0), 120, 160, 30)
    assert drawn.shape == (120, 160) and drawn.min() == 1 and drawn.max() == 30
    assert len(np.unique(drawn)) > 20
