"""Two real photos, fitted from scratch: pixels, annotations, losses, fusion and metric in one chain."""
import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from tests.conftest import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'mini' / 'remax_mnv3-s_1xb2-600_coco-sample-513.py'


@pytest.mark.slow
def test_remax__fits_two_coco_photos(coco_sample, tmp_path, monkeypatch):
    """50 segments of 8 classes, the smallest of 96 pixels; about half an hour on two CPU cores."""
    monkeypatch.setenv('COCO_SAMPLE', str(coco_sample))
    config = Config.fromfile(CONFIG)
    config.work_dir = str(tmp_path)
    runner = Runner.from_cfg(config)
    runner.train()
    assert runner.val_loop.run()['coco_panoptic/PQ'] >= 70
