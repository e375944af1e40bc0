import json

import pytest
import torch
from mmengine.config import Config

from remax_mm.benchmarks import inference_worker
from remax_mm.benchmarks.inference_report import find_baseline, format_rows, plot_rows, to_numbers
from remax_mm.benchmarks.inference_speed import Case, Latency, Speed, measure_cases, summarize
from remax_mm.benchmarks.inference_worker import Engine, Request, Seconds, draw_logits
from tests.tiny_model import detector_config


@pytest.fixture
def config(tmp_path):
    """Config file of a small model."""
    path = tmp_path / 'tiny.py'
    Config(dict(model=detector_config())).dump(path)
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize('engine', ['eager', 'optimized', 'bfloat16'])
def test_engines__merge_drawn_masks(engine, config):
    built = inference_worker.ENGINES[engine](Request(config, engine, (65, 65)))
    with torch.no_grad():
        class_logits, mask_logits = built.network()
        result, = built.merge(None)
    assert class_logits.shape == (1, 6, 6) and mask_logits.shape == (1, 6, 17, 17)
    assert len(result['pan_results'].sem_seg.unique()) > 1


@pytest.mark.slow
@pytest.mark.parametrize('engine', inference_worker.GPU_ENGINES)
def test_engines__cuda_graphs_need_a_gpu(engine, config):
    with torch.no_grad(), pytest.raises(RuntimeError, match='that a CUDA graph takes, but they are on cpu'):
        inference_worker.ENGINES[engine](Request(config, engine, (65, 65)))


def test_onnx_engine__needs_an_exported_model():
    pytest.importorskip('remax_mm.deploy.remax_runtime')
    with pytest.raises(ValueError, match='Expected an exported model for the engine int8'):
        inference_worker.ENGINES['int8'](Request('any.py', 'int8', (65, 65)))


def test_measure__times_of_both_parts(monkeypatch):
    clock = iter([1.0, 3.0, 7.0])
    cpu = iter([10.0, 11.0, 13.0])
    monkeypatch.setattr(inference_worker.time, 'perf_counter', lambda: next(clock))
    monkeypatch.setattr(inference_worker.time, 'process_time', lambda: next(cpu))
    merged = []
    seconds = inference_worker.measure(Engine(lambda: 'masks', merged.append), 'cpu', 0)
    assert seconds[:4] == (2.0, 4.0, 1.0, 2.0) and seconds.peak_memory > 2**20 and merged == ['masks']


def test_draw_logits__twenty_confident_slots():
    class_logits, mask_logits = draw_logits(torch.empty(1, 30, 134), torch.empty(1, 30, 33, 41))
    assert class_logits.shape == (1, 30, 134) and mask_logits.shape == (1, 30, 33, 41)
    assert int((class_logits[0].softmax(-1)[:, :-1].amax(1) > 0.7).sum()) == 20


def test_summarize__median_and_percentile():
    seconds = [Seconds(0.1 * i, 0.2 * i, 1.0 * i, 2.0 * i, 100 + i) for i in range(1, 22)]
    speed = summarize(seconds)
    assert speed.network == pytest.approx((1.1, 2.0)) and speed.whole == pytest.approx((3.3, 6.0))
    assert speed.peak_memory == 121 and speed.network.images_per_second == pytest.approx(1 / 1.1)
    assert summarize(seconds, 'cpu').whole.median == pytest.approx(33)


@pytest.fixture
def rows():
    request = Request('configs/a.py', 'optimized', (65, 129), 2)
    speed = Speed(Latency(0.05, 0.06), Latency(0.1, 0.2), 3 * 2**20)
    old = Speed(Latency(0.1, 0.1), Latency(0.4, 0.5), 2**20)
    other = Case(request._replace(config='configs/b.py'))
    return [(Case(request), speed), (Case(request._replace(engine='eager'), '55d733f'), old), (other, speed)]


def test_format_rows__relative_to_the_older_commit(rows):
    assert find_baseline(rows[0], rows) == rows[1][1] and find_baseline(rows[2], rows) is None
    lines = format_rows(rows).splitlines()
    assert lines[2] == ('| a | optimized | 65x129 | 2 | 50.0 | 60.0 | 20.00 | 100.0 | 200.0 | 10.00 | 3 | '
                        '0.500 | 0.250 |')
    assert lines[3].startswith('| a | eager 55d733f |') and lines[3].endswith('| 1.000 | 1.000 |')
    assert lines[4].startswith('| b | optimized |') and lines[4].endswith('| 3 |  |  |')
    assert 'relative' not in format_rows(rows[:1])


def test_report__numbers_and_plot(rows, tmp_path):
    numbers = json.loads(json.dumps(to_numbers(rows)))
    assert numbers[1]['commit'] == '55d733f' and numbers[0]['whole'] == dict(median=0.1, p95=0.2)
    plot_rows(rows, tmp_path / 'plot.png')
    assert (tmp_path / 'plot.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.slow
def test_measure_cases__in_processes(config):
    cases = [Case(Request(config, engine, (65, 65), warmup=1)) for engine in ('eager', 'optimized')]
    for speed in measure_cases(cases, rounds=2):
        assert 0 < speed.network.median < speed.whole.median and speed.peak_memory > 2**20


@pytest.mark.slow
def test_measure_cases__process_that_fails(tmp_path):
    case = Case(Request(str(tmp_path / 'missing.py'), 'eager', (65, 65)))
    with pytest.raises(RuntimeError, match='(?s)Expected the engine eager to run .*missing.py, but got'):
        measure_cases([case], rounds=1)
