"""Logs in the format of mmengine's LocalVisBackend, and the pictures of their curves."""
import json

import pytest

from remax_mm.analysis.metric_curves import default_keys, draw_classes, draw_curves, write_curves
from remax_mm.analysis.metric_logs import MetricLog, find_metric, read_log, read_runs


def _train(step, loss):
    return dict(lr=0.1, loss=loss, loss_cls=loss / 2, **{'d0.loss_cls': 1.}, iter=step, step=step, time=0.5)


def _val(step, pq, **classes):
    values = {f'coco_panoptic/PQ/{name}': value for name, value in classes.items()}
    return {'coco_panoptic/PQ': pq, **values, 'coco_panoptic/SQ/cat': 1., 'data_time': 0.1, 'step': step}


def _write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(record) + '\n' for record in records))
    return path


@pytest.fixture
def work_dir(tmp_path):
    """A training that was stopped after iteration 150, and resumed from its checkpoint of iteration 100."""
    _write(
        tmp_path / 'run' / '20260101_000000' / 'vis_data' / 'scalars.json',
        [_train(50, 9.), _train(100, 8.),
         _val(100, 20., cat=10., dog=30.),
         _train(150, 99.)])
    _write(tmp_path / 'run' / '20260102_000000' / 'vis_data' / 'scalars.json',
           [_train(150, 7.), _train(200, float('nan')),
            _val(200, 40., cat=35., dog=45.)])
    return tmp_path / 'run'


def test_read_log__resumed_training(work_dir):
    log = read_log(work_dir, 'mine')
    assert log.name == 'mine'
    assert log.curves['loss'][:3] == [(50, 9.), (100, 8.), (150, 7.)] and log.curves['loss'][3][0] == 200
    assert log.curves['coco_panoptic/PQ'] == [(100, 20.), (200, 40.)]
    assert log.class_values('PQ') == dict(cat=35., dog=45.)
    assert 'step' not in log.curves and 'iter' not in log.curves


def test_read_log__class_names_with_special_characters():
    log = MetricLog('a', {}, {'coco_panoptic/PQ/door, gate/exit': 1., 'x/y/PQ/z': 2., 'coco_panoptic/PQ': 3.})
    assert log.class_values('PQ') == {'door, gate/exit': 1.}


def test_read_log__results_of_a_test(tmp_path):
    path = tmp_path / 'metrics.json'
    path.write_text(json.dumps({'coco_panoptic/PQ': 30., 'coco_panoptic/PQ/cat': 25.}, indent=2))
    log = read_log(path, 'test')
    assert log.curves == {} and log.class_values('PQ') == dict(cat=25.)


def test_read_log__while_the_training_writes(tmp_path):
    path = _write(tmp_path / 'scalars.json', [_train(50, 9.), _train(100, 8.)])
    path.write_text(path.read_text() + '{"lr": 0.')
    assert [step for step, _ in read_log(path, 'a').curves['loss']] == [50, 100]


@pytest.mark.parametrize('text, message', [
    ('{"loss": 1, "step": 2}\n{"loss"\n{"loss": 2, "step": 3}\n',
     r'a JSON object in line 2 of .*scalars.json'),
    ('{"loss": 1, "step": 2}\n[1, 2]\n', r'a JSON object in line 2 of .*, but got \[1, 2\]'),
    ('not a log\n', 'a JSON object in line 1 of'),
])
def test_read_log__bad_content(tmp_path, text, message):
    (tmp_path / 'scalars.json').write_text(text)
    with pytest.raises(ValueError, match=message):
        read_log(tmp_path / 'scalars.json', 'a')


def test_read_runs__missing_files_and_names(work_dir, tmp_path):
    with pytest.raises(FileNotFoundError, match='scalars.json, at .*nothing'):
        read_runs([tmp_path / 'nothing'])
    with pytest.raises(ValueError, match="each name once in the runs of .*--names.*'run'"):
        read_runs([work_dir, work_dir])
    with pytest.raises(ValueError, match='each of the 2 runs, but got 1'):
        read_runs([work_dir, work_dir], ['a'])
    assert [run.name for run in read_runs([work_dir, work_dir], ['a', 'b'])] == ['a', 'b']


def test_find_metric__by_its_short_name(work_dir):
    runs = read_runs([work_dir])
    assert find_metric(runs, 'PQ') == find_metric(runs, 'coco_panoptic/PQ') == 'coco_panoptic/PQ'
    assert find_metric(runs, 'd0.loss_cls') == 'd0.loss_cls'
    with pytest.raises(ValueError, match="a metric of 'run', but got 'mAP'; there are coco_panoptic/PQ, d0"):
        find_metric(runs, 'mAP')


def test_draw_curves__lines_of_all_runs(work_dir):
    log = read_log(work_dir, 'first')
    other = MetricLog('other', dict(loss=[(10, 1.), (20, 2.)]), {})
    assert default_keys([log, other]) == ['loss', 'loss_cls', 'lr', 'coco_panoptic/PQ']
    axes = draw_curves([log, other], default_keys([log, other])).axes
    assert [axis.get_title() for axis in axes[:4]] == ['loss', 'loss_cls', 'lr', 'coco_panoptic/PQ']
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes[0].get_lines()}
    assert lines['other'] == [[10, 1], [20, 2]] and lines['first'][2] == [150, 7]
    assert [len(line.get_xdata()) for line in axes[3].get_lines()] == [2, 0]


def test_draw_classes__sorted_by_the_first_run(work_dir):
    other = MetricLog('other', {}, {'coco_panoptic/PQ/dog': 12., 'coco_panoptic/PQ/cow': 50.})
    axis, = draw_classes([read_log(work_dir, 'first'), other]).axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ['cow', 'cat', 'dog']  # the first run has no cows
    widths = [[bar.get_width() for bar in bars] for bars in axis.containers]
    assert widths[0][1:] == [35., 45.] and widths[1][0] == 50. and widths[1][2] == 12.


def test_draw_classes__many_classes():
    results = {f'coco_panoptic/PQ/{number:03d}': float(number) / 2 for number in range(133)}
    axis, = draw_classes([MetricLog('a', {}, results)]).axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == [f'{number:03d}' for number in [*range(40), *range(93, 133)]]
    assert axis.get_title() == 'PQ per class, the lowest and the highest 40 of 133'


def test_write_curves__files(work_dir, tmp_path):
    files = write_curves(read_runs([work_dir]), tmp_path / 'out', ['loss', 'PQ'])
    assert [file.name for file in files] == ['curves.png', 'classes.png']
    assert all(file.read_bytes()[:4] == b'\x89PNG' for file in files)
    with pytest.raises(ValueError, match='there are none'):
        write_curves([MetricLog('a', {}, {})], tmp_path / 'out')
