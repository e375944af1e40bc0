"""The command line of plot_metrics.py, and TensorBoard, on logs that mmengine writes."""
import runpy

import pytest
from mmengine.config import Config
from mmengine.visualization import Visualizer

from remax_mm.apis.run_config import use_tensorboard
from tests.conftest import REPOSITORY

MAIN = runpy.run_path(str(REPOSITORY / 'tools' / 'analysis_tools' / 'plot_metrics.py'))['main']


def _log(folder, backends, name):
    """What LoggerHook and the visualizer of a runner write in two steps."""
    visualizer = Visualizer(name=name, vis_backends=backends, save_dir=str(folder))
    for step in (10, 20):
        visualizer.add_scalars(dict(loss=1. / step, lr=0.1, iter=step), step=step)
    visualizer.add_scalars({'coco_panoptic/PQ': 12.5, 'coco_panoptic/PQ/cat': 7.}, step=20)
    visualizer.close()


def test_plot_metrics__work_dir(tmp_path, capsys):
    _log(tmp_path / 'run' / '20260101_000000', [dict(type='LocalVisBackend')], 'plot_metrics')
    MAIN([str(tmp_path / 'run'), '--keys', 'loss', 'PQ', '--out-dir', str(tmp_path / 'out')])
    assert {file.name for file in (tmp_path / 'out').iterdir()} == {'curves.png', 'classes.png'}
    assert 'curves.png and' in capsys.readouterr().out
    with pytest.raises(SystemExit, match="error: Expected a metric of 'run', but got 'mAP'"):
        MAIN([str(tmp_path / 'run'), '--keys', 'mAP', '--out-dir', str(tmp_path / 'out')])


def test_use_tensorboard__writes_events_and_the_file_of_plot_metrics(tmp_path):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    config = Config(
        dict(visualizer=dict(type='PanopticVisualizer', vis_backends=[dict(type='LocalVisBackend')])))
    backends = use_tensorboard(use_tensorboard(config)).visualizer.vis_backends
    assert [backend.type for backend in backends] == ['LocalVisBackend', 'TensorboardVisBackend']
    _log(tmp_path, backends, 'tensorboard')
    assert (tmp_path / 'vis_data' / 'scalars.json').is_file()
    events = EventAccumulator(str(tmp_path / 'vis_data')).Reload()
    assert [(event.step, event.value) for event in events.Scalars('coco_panoptic/PQ')] == [(20, 12.5)]
    assert [event.step for event in events.Scalars('loss')] == [10, 20]


def test_use_tensorboard__bad_config(monkeypatch):
    with pytest.raises(ValueError, match='Expected `visualizer`'):
        pytest.importorskip('tensorboard') and use_tensorboard(Config(dict()))
    monkeypatch.setattr('remax_mm.apis.run_config.find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'remax_mm\[tools\]'):
        use_tensorboard(Config(dict(visualizer=dict())))
