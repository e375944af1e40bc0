"""Reports of stored results that are written by hand."""
import json

from remax_mm.benchmarks.gpu_report.parts import PARTS
from remax_mm.benchmarks.gpu_report.records import DONE, FAILED, SKIPPED, STOPPED, WAITING, Record, Records
from remax_mm.benchmarks.gpu_report.scale import FULL, TINY
from remax_mm.benchmarks.gpu_report.tables import (checkpointing_table, comparison_table, inference_table,
                                                   outcome_table, share_table, training_table)
from remax_mm.benchmarks.gpu_report.write_report import missing_lines, write_report

OWN, OTHER = FULL.models[1], FULL.mask2former[1]


def _point(batch_size, seconds, gib):
    return dict(
        batch_size=batch_size,
        seconds=seconds,
        images_per_second=batch_size / seconds,
        peak_memory=gib * 2**30,
        first_step=61.4)


def _training(model, points, too_large=None, status=DONE, **options):
    options = dict(model=model.title, precision='bfloat16', compiled=False, **options)
    return Record('a', options, status, result=dict(points=points, too_large=too_large))


def test_training_table__recipe_fastest_and_largest_batch():
    points = [_point(4, 0.1, 2.), _point(8, 0.16, 3.), _point(16, 0.4, 6.5)]
    rows = training_table([
        _training(OWN, points, 32),
        _training(OWN, points[:1], None, STOPPED),
    ], FULL).splitlines()[2:]
    assert rows == [
        '| ReMaX-T (641) | bfloat16 | eager | 50.0 | 3.00 | 8 | 50.0 | 3.00 | 16 | 61 |',
        '| ReMaX-T (641) | bfloat16 | eager |  |  | 4 | 40.0 | 2.00 | 4 or more | 61 |'
    ]


def test_comparison_table__largest_common_batch_of_the_same_size():
    own = [_training(OWN, [_point(4, 0.1, 2.), _point(8, 0.2, 3.), _point(16, 0.3, 4.)])]
    other = [_training(OTHER, [_point(4, 0.2, 2.), _point(8, 0.5, 4.)])]
    assert comparison_table(own, other,
                            FULL).splitlines()[2:] == ['| ReMaX-T (641) | bfloat16 | 8 | 0.40 | 0.75 |']
    assert not comparison_table(own, [_training(FULL.mask2former[0], [_point(8, 0.5, 4.)])], FULL)
    assert not comparison_table(own, [_training(OTHER, [_point(32, 0.5, 4.)])], FULL)


def test_other_tables__by_hand():
    options = dict(model='ReMaX-T', engine='eager', precision='bfloat16')
    latencies = dict(network=dict(median=0.02, p95=0.03), whole=dict(median=0.025, p95=0.04))
    speed = Record('a', options, DONE, result=dict(latencies, peak_memory=3 * 2**20))
    row = '| ReMaX-T | eager | 20.0 | 30.0 | 5.0 | 25.0 | 40.0 | 3 |'
    assert inference_table([speed], FULL).splitlines()[2:] == [row]
    assert inference_table([speed._replace(result=latencies)], FULL).endswith('| 40.0 |  |')

    seconds = dict(
        data=0.1, preprocessing=0.02, forward=0.2, criterion=0.1, matching=0.08, backward=0.4, optimizer=0.1)
    shares = Record('a', options, DONE, result=dict(seconds=seconds, step=1., batch_size=8, num_workers=8))
    row = '| ReMaX-T | bfloat16 | 8 | 1000 | 10.0 | 2.0 | 20.0 | 10.0 | 8.0 | 40.0 | 10.0 |'
    assert share_table([shares], FULL).splitlines()[2:] == [row]

    result = dict(plain=_point(8, 0.2, 4.), checkpointed=_point(8, 0.26, 1.), time=1.3, memory=0.25)
    row = '| ReMaX-T | bfloat16 | 8 | 4.00 | 1.00 | 0.25 | 1.30 |'
    assert checkpointing_table([Record('a', options, DONE, result=result)], FULL).splitlines()[2:] == [row]

    result = dict(passed=3, failed=1, skipped=0, failures=['test_a.py::test_b: assert 1 == 2'], reasons=[])
    lines = outcome_table([Record('test_a.py', {}, DONE, result=result)], FULL).splitlines()
    assert lines[2:] == [
        '| `tests/cuda/test_a.py` | 3 | 1 | 0 |', '', 'Failed:', '', '- `test_a.py::test_b: assert 1 == 2`'
    ]


def test_missing_lines__by_reason():
    records = [
        Record('a', {}, DONE, result=dict(points=[])),
        Record('b', {}, SKIPPED, 'out of memory'),
        Record('c', {}, SKIPPED, 'out of memory'),
        Record('d', {}, STOPPED, 'no time for 8 images or more', dict(points=[1])),
        Record('e', {}, WAITING),
        Record('f', {}, FAILED, 'RuntimeError: a')
    ]
    assert missing_lines(records) == [
        '- not measured, skipped: out of memory (b; c)', '- incomplete: no time for 8 images or more (d)',
        '- not measured yet (e)', '- not measured, failed: RuntimeError: a (f)'
    ]


RESULTS = dict(
    machine=dict(GPU='a GPU'),
    tests=dict(passed=1, failed=0, skipped=0, failures=[], reasons=[]),
    training=dict(points=[_point(2, 0.5, 1.)], too_large=4),
    mask2former=dict(points=[_point(2, 1., 4.)], too_large=4, deformable_attention='PyTorch'),
    inference=dict(network=dict(median=0.02, p95=0.03), whole=dict(median=0.03, p95=0.04)),
    shares=dict(
        seconds=dict.fromkeys(
            ['data', 'preprocessing', 'forward', 'criterion', 'matching', 'backward', 'optimizer'], 0.1),
        step=0.7,
        batch_size=2,
        num_workers=0),
    mini=dict(
        precision='bfloat16',
        iterations=2,
        batch_size=8,
        seconds=0.03,
        metrics=dict(PQ=71.5, SQ=80.),
        loss=[[1, 30.], [2, 25.]]),
    checkpointing=dict(plain=_point(2, 0.5, 1.), checkpointed=_point(2, 0.6, 0.5), time=1.2, memory=0.5))


def test_write_report__all_parts(tmp_path):
    settings = dict(scale='tiny', device='cuda', commit='abc1234')
    for name, part in PARTS.items():
        for case in part.list_cases(TINY):
            Records(tmp_path, name).write(case, status=DONE, result=RESULTS[name])
    write_report(tmp_path, list(PARTS.values()), settings)

    text = (tmp_path / 'report.md').read_text()
    assert 'commit abc1234' in text and 'not measured' not in text and 'A trial of the tool' in text
    for row in ('| GPU | a GPU |', '| ReMaX (mini, 129) | bfloat16 | 2 | 0.50 | 0.25 |',
                '| ReMaX, MobileNetV3-Small, mini dataset | bfloat16 | 2 | 30 | 71.5 | 80.0 |'):
        assert row in text
    stored = json.loads((tmp_path / 'report.json').read_text())
    assert list(stored['parts']) == list(PARTS) and stored['parts']['mini'][0]['result'] == RESULTS['mini']
    for name in ('training', 'inference', 'mask2former', 'shares', 'mini'):
        assert f']({name}.png)' in text
        assert (tmp_path / f'{name}.png').read_bytes().startswith(b'\x89PNG')


def test_write_report__nothing_measured(tmp_path):
    settings = dict(scale='full', device='cuda', commit='abc1234')
    assert list(write_report(tmp_path, list(PARTS.values()), settings)) == [WAITING]
    text = (tmp_path / 'report.md').read_text()
    assert '## Training step\n\n- not measured yet (all)\n' in text
    assert '.png' not in text and not list(tmp_path.glob('*.png'))
