import json
import runpy
import sys

import pytest
from mmengine.config import Config

from remax_mm.benchmarks.inference_worker import ENGINES
from tests.conftest import REPOSITORY
from tests.tiny_model import detector_config

TOOL = REPOSITORY / 'tools' / 'analysis_tools' / 'benchmark_inference.py'


def _run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


@pytest.mark.slow
def test_benchmark_inference__table_numbers_and_plot(tmp_path, monkeypatch, capsys):
    config = tmp_path / 'tiny.py'
    Config(dict(model=detector_config())).dump(config)
    _run(monkeypatch, config, '--rounds', 2, '--warmup', 1, '--threads', 1, '--no-mmdet', '--json',
         tmp_path / 'out.json', '--plot', tmp_path / 'out.png')
    rows = json.loads((tmp_path / 'out.json').read_text())['rows']
    assert [(row['engine'], row['size']) for row in rows] == [('eager', [65, 65]), ('optimized', [65, 65])]
    assert '| tiny | optimized | 65x65 | 1 |' in capsys.readouterr().out and (tmp_path / 'out.png').exists()


@pytest.mark.parametrize('arguments, message', [
    (['a.py', '--rounds', 0], '--rounds to be at least 1, but got 0'),
    (['a.py', '--engines', 'onnx'], '--onnx to name an exported model'),
    (['a.py', 'b.py', '--checkpoint', 'c.pth'], 'one config together with --checkpoint, but got 2'),
])
def test_benchmark_inference__wrong_arguments(arguments, message, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        _run(monkeypatch, *arguments)
    assert message in capsys.readouterr().err


def test_benchmark_inference__all_engines():
    assert tuple(ENGINES) == runpy.run_path(str(TOOL))['ENGINES']


def test_benchmark_inference__config_without_a_size(tmp_path, monkeypatch):
    Config(dict(model=dict(type='Any'))).dump(tmp_path / 'any.py')
    with pytest.raises(SystemExit, match='Expected --sizes, because .*any.py has no'):
        _run(monkeypatch, tmp_path / 'any.py')
