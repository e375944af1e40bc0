"""The hook that tests the final weights, with a runner of which only the test loop is there."""
import json
from types import SimpleNamespace

import pytest

from remax_mm.analysis import study_runs
from remax_mm.engine.hooks import FinalTestHook
from remax_mm.engine.hooks.final_test_hook import RESULT_FILE


def _runner(folder, test_loop, rank=0):
    return SimpleNamespace(test_loop=test_loop, rank=rank, work_dir=str(folder))


def test_final_test_hook__writes_the_metrics_of_the_end(tmp_path):
    loop = SimpleNamespace(run=lambda: {'coco_panoptic/PQ': 12.5})
    hook = FinalTestHook()
    hook.before_train(_runner(tmp_path, loop))
    assert not list(tmp_path.iterdir())
    hook.after_train(_runner(tmp_path, loop, rank=1))
    assert not list(tmp_path.iterdir())
    hook.after_train(_runner(tmp_path, loop))
    assert json.loads((tmp_path / RESULT_FILE).read_text()) == {'coco_panoptic/PQ': 12.5}
    assert RESULT_FILE == study_runs.RESULT_FILE


def test_final_test_hook__config_without_test_data(tmp_path):
    with pytest.raises(ValueError, match='Expected `test_dataloader`'):
        FinalTestHook().before_train(_runner(tmp_path, None))
