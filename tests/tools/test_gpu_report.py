import json
import runpy

import pytest

from remax_mm.benchmarks.gpu_report.parts import PARTS
from tests.conftest import REPOSITORY

TOOL = REPOSITORY / 'tools' / 'analysis_tools' / 'gpu_report.py'


def _run(*arguments):
    runpy.run_path(str(TOOL))['main']([str(argument) for argument in arguments])


def test_gpu_report__names_of_the_parts():
    assert runpy.run_path(str(TOOL))['PARTS'] == tuple(PARTS)


def test_gpu_report__wrong_budget(capsys):
    with pytest.raises(SystemExit):
        _run('--budget', '-1')
    assert '--budget to be at least 0, but got -1' in capsys.readouterr().err


def test_gpu_report__results_of_other_settings(tmp_path):
    (tmp_path / 'settings.json').write_text('{"device": "cuda"}')
    with pytest.raises(SystemExit, match='Expected results with the settings .* device cuda instead of cpu'):
        _run('--device', 'cpu', '--budget', 0, '--out', tmp_path)


@pytest.mark.slow
def test_gpu_report__trial_on_a_cpu(tmp_path):
    """The whole tool with tiny models; then the report again, of the stored results."""
    arguments = ['--device', 'cpu', '--tiny', '--out', tmp_path]
    _run(*arguments, '--budget', 1800)
    report = json.loads((tmp_path / 'report.json').read_text())
    results = {
        f'{part}: {record["name"]}': record
        for part, records in report['parts'].items()
        for record in records
    }
    logs = '\n'.join(path.read_text()[-2000:] for path in (tmp_path / 'logs').iterdir())
    assert {record['status'] for record in results.values()} == {'done', 'skipped'}, logs
    assert {name
            for name, record in results.items() if record['status'] == 'done'} == {
                'machine: machine', 'training: ReMaX (mini, 129), float32',
                'training: ReMaX (mini, 129), float32, compiled', 'inference: ReMaX (mini, 129), eager',
                'inference: ReMaX (mini, 129), optimized', 'inference: ReMaX (mini, 129), bfloat16',
                'inference: Mask2Former (R18, 128), eager', 'inference: Mask2Former (R18, 128), bfloat16',
                'mask2former: Mask2Former (R18, 128), float32', 'shares: ReMaX (mini, 129), float32',
                'mini: ReMaX, MobileNetV3-Small, mini dataset', 'checkpointing: ReMaX (mini, 129), float32'
            }
    reasons = {record['reason'] for record in results.values() if record['status'] == 'skipped'}
    assert all('GPU' in reason for reason in reasons)
    points = results['training: ReMaX (mini, 129), float32']['result']['points']
    assert [point['batch_size'] for point in points] == [1, 2]
    shares = results['shares: ReMaX (mini, 129), float32']['result']
    assert min(shares['seconds'].values()) > 0 and shares['step'] == sum(shares['seconds'].values())
    assert results['checkpointing: ReMaX (mini, 129), float32']['result']['memory'] < 1

    text = (tmp_path / 'report.md').read_text()
    for path in tmp_path.glob('report.*'):
        path.unlink()
    _run(*arguments, '--budget', 0)
    assert (tmp_path / 'report.md').read_text() == text
