"""The command lines of the benchmarks; tests/benchmarks has what they measure."""
import json
import math
import runpy

import numpy as np
import pytest
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

from remax_mm.benchmarks.coco_like_images import draw_coco_like
from tests.conftest import REPOSITORY


@pytest.fixture(autouse=True)
def _mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def _run(tool, *arguments):
    path = REPOSITORY / 'tools' / 'analysis_tools' / f'{tool}.py'
    runpy.run_path(str(path))['main']([str(argument) for argument in arguments])


def test_benchmark_pipeline__numbers_and_ratios(tmp_path, capsys):
    draw_coco_like(tmp_path, 'drawn', 2, (10, 20))
    _run('benchmark_pipeline', '--data', tmp_path, '--split', 'drawn', '--num-images', 2, '--crops', 641,
         '--repeats', 1, '--json', tmp_path / 'speed.json', '--color-policy')
    speed = json.loads((tmp_path / 'speed.json').read_text())['641']
    assert speed['ratio'] == pytest.approx(speed['ours'] / speed['mmdet'])
    assert f'({speed["ratio"]:.2f})' in capsys.readouterr().out


def test_benchmark_panoptic_quality__numbers(tmp_path, capsys):  # noqa: F811
    try:
        _run('benchmark_panoptic_quality', '--sizes', '180x240', '--images', 3, '--repeats', 2, '--json',
             tmp_path / 'out.json')
    finally:
        MMLogger.get_instance('benchmark_panoptic_quality').setLevel('INFO')  # it stays the current logger
    numbers = json.loads((tmp_path / 'out.json').read_text())['180x240']
    assert len(numbers['ours']) == len(numbers['mmdet']) == 2
    assert numbers['ratio'] == pytest.approx(np.median(numbers['mmdet']) / np.median(numbers['ours']))
    assert '180x240' in capsys.readouterr().out


@pytest.mark.slow
def test_benchmark_targets__numbers(tmp_path, capsys):
    _run('benchmark_targets', '--json', tmp_path / 'memory.json')
    memory = json.loads((tmp_path / 'memory.json').read_text())
    ratio = memory['mmdet']['targets'] / memory['ours']['targets']
    assert f'MMDetection takes {ratio:.1f} times as much for the targets' in capsys.readouterr().out


@pytest.mark.slow
def test_benchmark_training__criterion(tmp_path, capsys):
    _run('benchmark_training', '--what', 'criterion', '--commit', 'HEAD', '--methods', 'kmax', '--segments',
         2, 3, '--crop', 65, '--num-slots', 8, '--rounds', 1, '--out', tmp_path / 'cost.json')
    printed = capsys.readouterr().out
    assert '| kmax, 2 segments | criterion |' in printed and '| kmax, 3 segments | loss_insdis |' in printed
    cost = json.loads((tmp_path / 'cost.json').read_text())
    assert list(cost) == ['kmax, 2 segments', 'kmax, 3 segments']


@pytest.mark.slow
def test_benchmark_training__step(tmp_path, capsys):
    """This version relative to itself, and to itself without recomputation."""
    config = 'configs/mini/kmax_mnv3-s_1xb8-1k_mini-129.py'
    _run('benchmark_training', '--commit', 'HEAD', '--configs', config, '--segments', 3, '--rounds', 1,
         '--memory-by-module', '--out', tmp_path / 'cost.json', '--cfg-options',
         'model.recompute_activations=True')
    printed = capsys.readouterr().out
    assert '| kmax_mnv3-s_1xb8-1k_mini-129, 3 segments |' in printed
    assert '| panoptic_head.pixel_decoder |' in printed
    cost, = json.loads((tmp_path / 'cost.json').read_text()).values()
    assert cost['loss_difference'] < 1e-5 and cost['memory'] < 0.8
    assert cost['new']['kept_memory'].keys() == cost['old']['kept_memory'].keys()
    assert all(new <= cost['old']['kept_memory'][name] for name, new in cost['new']['kept_memory'].items())


@pytest.mark.slow
def test_benchmark_training__another_model(tmp_path, capsys):
    """mmdet's Mask2Former without ReMaX, relative to itself with it."""
    name = 'mask2former_r18_1xb8-600_mini-129.py'
    _run('benchmark_training', '--configs', f'configs/mini/{name}', '--against', f'configs/mini/remax-{name}',
         '--side', 64, '--segments', 3, '--rounds', 1, '--num-steps', 1, '--out', tmp_path / 'cost.json')
    assert f'Relative to configs/mini/remax-{name}: batch size 1' in capsys.readouterr().out
    cost, = json.loads((tmp_path / 'cost.json').read_text()).values()
    assert cost['memory'] < 1 and math.isnan(cost['loss_difference'])
    assert cost['old']['losses'][0].keys() > cost['new']['losses'][0].keys()


def test_benchmark_training__unknown_commit():
    with pytest.raises(SystemExit, match="Expected a commit .*, but got 'no-such-commit'"):
        _run('benchmark_training', '--commit', 'no-such-commit')
