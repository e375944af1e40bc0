"""Convert, check, train and evaluate each kind of dataset with the command line tools."""
import json
import math
import runpy

import pytest

from tests.conftest import REPOSITORY
from tests.datasets.test_original_layouts import LAYOUTS

MINI = REPOSITORY / 'configs' / 'mini' / 'kmax_mnv3-s_1xb8-1k_mini-129.py'
# Numbers of thing and stuff classes.
COUNTS = dict(cityscapes=(8, 11), ade20k=(100, 50), user=(2, 2))

CONFIG = """
_base_ = '{base}'
model = dict(panoptic_head=dict(num_things_classes={things}, num_stuff_classes={stuff}))
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict({train}))
val_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False, dataset=dict({val}))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=2, val_interval=100)
default_hooks = dict(checkpoint=dict(interval=2, save_best=None))
visualizer = dict(name='{name}')
"""


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a tool and return its exit code."""

    def run(script, *arguments):
        path = REPOSITORY / 'tools' / script
        monkeypatch.setattr('sys.argv', [str(path), *map(str, arguments)])
        monkeypatch.syspath_prepend(str(path.parent))
        try:
            runpy.run_path(str(path), run_name='__main__')
        except SystemExit as done:
            return done.code
        return 0

    return run


def _write_config(name, folder):
    things, stuff = COUNTS[name]
    splits = {
        split: f'data_root={str(folder)!r}, **{LAYOUTS[name](folder, split)[1]!r}'
        for split in ('train', 'val')
    }
    path = folder / 'config.py'
    path.write_text(CONFIG.format(base=MINI, things=things, stuff=stuff, name=f'data_{name}', **splits))
    return path


@pytest.mark.slow
@pytest.mark.parametrize('name', COUNTS)
def test_dataset__converted_trained_and_evaluated(name, tmp_path, call):
    config = _write_config(name, tmp_path)
    for split in ('train', 'val'):
        assert call('analysis_tools/check_panoptic_dataset.py', '--config', config, '--split', split) == 0

    work_dir, metrics = tmp_path / 'work', tmp_path / 'metrics.json'
    assert call('train.py', config, '--work-dir', work_dir) == 0
    assert call('test.py', config, work_dir / 'iter_2.pth', '--work-dir', work_dir, '--all-tasks', '--out',
                metrics) == 0
    found = json.loads(metrics.read_text())
    for key in ('coco_panoptic/PQ', 'coco/segm_mAP', 'semantic/mIoU'):
        assert math.isfinite(found[key]) and 0 <= found[key] <= 100
