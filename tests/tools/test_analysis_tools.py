import json
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from remax_mm.apis.host_tools import find_mmdet_tool

REPOSITORY = Path(__file__).resolve().parents[2]


def _run(monkeypatch, script, *arguments):
    monkeypatch.setattr(sys, 'argv', [script, *map(str, arguments)])
    runpy.run_path(str(REPOSITORY / 'tools' / 'analysis_tools' / script), run_name='__main__')


def test_find_mmdet_tool__those_that_are_used():
    for name in ('analyze_logs.py', 'get_flops.py'):
        assert find_mmdet_tool(f'analysis_tools/{name}').is_file()
    with pytest.raises(FileNotFoundError, match='analysis_tools/none.py'):
        find_mmdet_tool('analysis_tools/none.py')


def test_analyze_logs__train_time(monkeypatch, tmp_path, capsys):
    if find_spec('seaborn') is None:
        with pytest.raises(SystemExit, match='seaborn'):
            _run(monkeypatch, 'analyze_logs.py', 'cal_train_time', 'log.json')
        return
    log = tmp_path / 'log.json'
    # mmdet wants epochs in the lines; logs of iterations have none in the training lines of mmengine either.
    lines = [dict(epoch=1, iter=i, step=i, time=0.5, loss=1. / i) for i in (1, 2, 3)]
    log.write_text('\n'.join(map(json.dumps, lines)) + '\n')
    _run(monkeypatch, 'analyze_logs.py', 'cal_train_time', log)
    assert '0.5000' in capsys.readouterr().out
