import json

import pytest

from remax_mm.apis import load_config
from remax_mm.benchmarks.gpu_report.parts import PARTS
from remax_mm.benchmarks.gpu_report.records import (DONE, WAITING, Case, Record, Records, check_settings,
                                                    file_name)
from remax_mm.benchmarks.gpu_report.scale import FULL, SCALES
from remax_mm.model_names import find_config

CASE = Case('ReMaX-T (641), bfloat16', dict(precision='bfloat16'))


def test_records__one_file_per_case(tmp_path):
    records = Records(tmp_path, 'training')
    assert records.read(CASE) == Record(CASE.name, CASE.options, WAITING)
    records.write(CASE, result=dict(seconds=0.5))
    records.write(CASE, status=DONE, seconds=2.)
    records.write(Case('other'), reason='no time was left')
    expected = Record(CASE.name, CASE.options, DONE, result=dict(seconds=0.5), seconds=2.)
    assert Records(tmp_path, 'training').read_all([CASE]) == [expected]
    files = sorted(path.name for path in (tmp_path / 'results' / 'training').iterdir())
    assert files == ['other.json', 'remax-t-641-bfloat16.json']


@pytest.mark.parametrize(
    'text',
    ['{"name": "a"', '[1]', '{"unknown": 1}',
     json.dumps(dict(name='a', options={}, status='finished'))])
def test_records__file_that_is_no_record(text, tmp_path):
    records = Records(tmp_path, 'training')
    records.write(CASE)
    (tmp_path / 'results/training/remax-t-641-bfloat16.json').write_text(text)
    with pytest.raises(ValueError, match='Expected .*remax-t-641-bfloat16.json, but '):
        records.read(CASE)


def test_check_settings__other_gpu(tmp_path):
    settings = dict(GPU='A', commit='1')
    for _ in range(2):
        check_settings(tmp_path, settings)
    with pytest.raises(ValueError, match='but got those of GPU A instead of B; choose another --out'):
        check_settings(tmp_path, dict(settings, GPU='B'))
    (tmp_path / 'settings.json').write_text('{')
    with pytest.raises(ValueError, match='Expected a JSON object in .*settings.json'):
        check_settings(tmp_path, settings)


@pytest.mark.parametrize('part', PARTS)
@pytest.mark.parametrize('scale', SCALES)
def test_cases__have_files_of_their_own(part, scale):
    cases = PARTS[part].list_cases(SCALES[scale])
    assert cases and all(case.weight > 0 for case in cases) and PARTS[part].share > 0
    assert len({file_name(case.name) for case in cases}) == len(cases)


def test_training_cases__all_models_precisions_and_modes():
    cases = PARTS['training'].list_cases(FULL)
    assert len(cases) == len({json.dumps(case.options) for case in cases}) == 4 * 3 * 2


@pytest.mark.parametrize('scale', SCALES.values(), ids=SCALES)
def test_models__sizes_of_their_configs(scale):
    for model in scale.models:
        assert set(load_config(model.name).model.data_preprocessor.pad_size) == {model.side}
    for model in scale.mask2former:
        assert find_config(model.name).is_file() and model.side % 32 == 0
    assert len({model.title
                for model in scale.models + scale.mask2former}) == len(scale.models + scale.mask2former)
