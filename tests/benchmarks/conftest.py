"""Fixtures of the benchmarks."""
import pytest
from mmdet.evaluation.functional import panoptic_utils
from mmdet.evaluation.metrics import coco_panoptic_metric


@pytest.fixture
def mmdet_metric(monkeypatch):
    """Restore what a test replaces in mmdet's metric."""
    for module in (panoptic_utils, coco_panoptic_metric):
        for name in ('panopticapi', 'VOID', 'PQStat', 'rgb2id', 'id2rgb'):
            monkeypatch.setattr(module, name, getattr(module, name, None), raising=False)
