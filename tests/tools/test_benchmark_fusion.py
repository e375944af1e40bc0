import json
import runpy
import subprocess
import sys

import pytest

from remax_mm.analysis.fusion_worker import TASKS
from tests.conftest import REPOSITORY

TOOL = REPOSITORY / 'tools' / 'analysis_tools' / 'benchmark_fusion.py'


@pytest.mark.slow
@pytest.mark.skipif(not (REPOSITORY / '.git').exists(), reason='needs the git repository')
def test_benchmark_fusion__against_the_last_commit(tmp_path):
    path = tmp_path / 'numbers.json'
    arguments = '--commit HEAD --tasks pixelwise --sizes 65 --num-slots 24 --rounds 1 --repeats 1'.split()
    process = subprocess.run([sys.executable, str(TOOL), *arguments, '--json',
                              str(path)],
                             check=True,
                             cwd=REPOSITORY,
                             capture_output=True,
                             text=True)
    row, = json.loads(path.read_text())
    assert (row['size'], row['task'], row['equal_pixels']) == (65, 'pixelwise', 1.0)
    assert '| 65 | pixelwise |' in process.stdout
    worktrees = subprocess.run(['git', 'worktree', 'list'],
                               check=True,
                               cwd=REPOSITORY,
                               capture_output=True,
                               text=True)
    assert '/checkout ' not in worktrees.stdout


@pytest.mark.parametrize('arguments, message', [(['--rounds', '0'], '--rounds to be at least 1'),
                                                (['--sizes', '3'], '--sizes of at least 5')])
def test_benchmark_fusion__wrong_arguments(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *arguments])
    with pytest.raises(SystemExit):
        runpy.run_path(str(TOOL), run_name='__main__')
    assert message in capsys.readouterr().err


def test_benchmark_fusion__offers_every_task():
    assert runpy.run_path(str(TOOL))['TASKS'] == tuple(TASKS)
