import json
import runpy

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData

from remax_mm.evaluation import PanopticQualityMetric
from tests.conftest import REPOSITORY
from tests.panoptic_cases import CLASSES, META, data_sample, random_case, write_panoptic_files

MAIN = runpy.run_path(str(REPOSITORY / 'tools' / 'analysis_tools' / 'eval_panoptic.py'))['main']


def _options(paths):
    return [text for name, path in paths.items() for text in (f'--{name.replace("_", "-")}', str(path))]


def _metric(folder, cases, prefix):
    """Values of the metric, which also exports the predictions."""
    evaluator = Evaluator(
        PanopticQualityMetric(classwise=True, outfile_prefix=str(prefix), ann_file=str(folder / 'gt.json')))
    evaluator.dataset_meta = META
    for number, case in enumerate(cases):
        sample = data_sample(folder / 'metric', f'{number:06d}', case.ground_truth, case.segments)
        sample.set_metainfo(dict(img_id=number))
        sample.pred_panoptic_seg = PixelData(sem_seg=torch.as_tensor(case.prediction)[None])
        evaluator.process([sample])
    return evaluator.evaluate(len(cases))


@pytest.mark.parametrize('processes', [1, 2])
def test_eval_panoptic__equals_the_metric(tmp_path, capsys, processes):
    rng = np.random.default_rng(0)
    cases = [random_case(rng) for _ in range(30)]
    paths = write_panoptic_files(tmp_path, cases)
    metrics = _metric(tmp_path, cases, tmp_path / 'exported')

    # The folders have the names of the JSON files.
    MAIN([
        '--gt-json',
        str(paths['gt_json']), '--pred-json',
        str(tmp_path / 'exported.json'), '--json',
        str(tmp_path / 'out.json'), '--processes',
        str(processes)
    ])
    numbers = json.loads((tmp_path / 'out.json').read_text())
    assert numbers['images'] == 30
    for title, suffix, count in (('All', '', 6), ('Things', '_th', 3), ('Stuff', '_st', 3)):
        assert numbers[title].pop('N') == count
        for name, value in numbers[title].items():
            assert value == pytest.approx(metrics[f'coco_panoptic/{name}{suffix}'], rel=0, abs=1e-9)
    assert {row['name'] for row in numbers['classes']} == set(CLASSES)
    for row in numbers['classes']:
        for name in ('PQ', 'SQ', 'RQ'):
            assert row[name] == pytest.approx(metrics[f'coco_panoptic/{name}/{row["name"]}'], rel=0, abs=1e-9)
        assert row['RQ'] == pytest.approx(100 * row['TP'] / (row['TP'] + row['FP'] / 2 + row['FN'] / 2))
    printed = capsys.readouterr().out
    assert f'| All    | {numbers["All"]["PQ"]:.2f}' in printed and '| 6 |' in printed


def test_eval_panoptic__ignored_predictions_and_existing_file(tmp_path, capsys):
    rng = np.random.default_rng(2)
    paths = write_panoptic_files(tmp_path, [random_case(rng) for _ in range(3)])
    content = json.loads(paths['gt_json'].read_text())
    content['annotations'].pop()
    paths['gt_json'].write_text(json.dumps(content))
    MAIN([*_options(paths), '--json', str(tmp_path / 'out.json')])
    assert '1 predictions are left out' in capsys.readouterr().out
    with pytest.raises(FileExistsError, match='out.json'):
        MAIN([*_options(paths), '--json', str(tmp_path / 'out.json')])


def test_eval_panoptic__unlisted_ids(tmp_path):
    paths = write_panoptic_files(tmp_path, [random_case(np.random.default_rng(3))])
    content = json.loads(paths['gt_json'].read_text())
    del content['annotations'][0]['segments_info'][0]
    paths['gt_json'].write_text(json.dumps(content))
    with pytest.raises(ValueError, match='gt/000000.png'):
        MAIN(_options(paths))
    MAIN([*_options(paths), '--allow-unlisted-ids'])
