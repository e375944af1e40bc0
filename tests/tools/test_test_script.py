"""tools/test.py: all tasks from one forward pass, and submissions of images without annotations."""
import json
import runpy
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import dump, load
from mmengine.registry import DefaultScope

from remax_mm.datasets.mini_drawing import STUFF, THINGS
from remax_mm.datasets.mini_panoptic import write_mini_panoptic
from remax_mm.panoptic_format import read_segment_ids
from tests.conftest import REPOSITORY
from tests.oracle_detector import OracleDetector

SCRIPT = str(REPOSITORY / 'tools' / 'test.py')


@pytest.fixture(autouse=True)
def _mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Three images of the mini dataset, and a config and a checkpoint of the oracle."""
    root = tmp_path_factory.mktemp('mini')
    write_mini_panoptic(root / 'data', num_train=1, num_val=3, size=65)
    config = Config.fromfile(REPOSITORY / 'configs' / 'mini' / 'kmax_mnv3-s_1xb8-1k_mini-129.py')
    config.model = dict(type='OracleDetector', num_things=len(THINGS), num_classes=len(THINGS) + len(STUFF))
    config.visualizer.name = 'oracle'  # mmengine caches visualizers by name
    config.custom_imports.imports.append('tests.oracle_detector')
    config.test_dataloader.update(num_workers=0, persistent_workers=False)
    config.test_dataloader.dataset.data_root = str(root / 'data')
    config.dump(root / 'oracle.py')
    torch.save(dict(state_dict=OracleDetector(1, 1).state_dict(), meta={}), root / 'oracle.pth')
    return root


def _run(*arguments):
    argv, sys.argv = sys.argv, [SCRIPT, *map(str, arguments)]
    try:
        return runpy.run_path(SCRIPT, run_name='__main__')
    finally:
        sys.argv = argv


def _test(root, name, *arguments):
    """Metrics of the oracle."""
    out = root / f'{name}.json'
    _run(root / 'oracle.py', root / 'oracle.pth', '--work-dir', root / name, '--out', out, *arguments)
    return load(out)


def test_all_tasks__annotation_as_prediction_is_perfect(root):
    metrics = _test(root, 'perfect', '--all-tasks')
    assert {
        key: value
        for key, value in metrics.items() if key.startswith('coco_panoptic/')
    } == {
        f'coco_panoptic/{name}{group}': 100.
        for name in ('PQ', 'SQ', 'RQ')
        for group in ('', '_th', '_st')
    }
    assert metrics['coco/segm_mAP'] == metrics['coco/segm_mAP_75'] == 1
    assert metrics['semantic/mIoU'] == metrics['semantic/aAcc'] == 100


def test_all_tasks__scalars_of_every_class(root):
    metrics = _test(root, 'shifted', '--all-tasks', '--cfg-options', 'test_evaluator.classwise=True',
                    'model.shift=3')
    assert 0 < metrics['coco/segm_mAP'] < 1 and 0 < metrics['semantic/mIoU'] < 100
    annotations = json.loads((root / 'data' / 'annotations' / 'panoptic_val.json').read_text())
    name_of = {category['id']: category['name'] for category in annotations['categories']}
    shown = {
        name_of[segment['category_id']]
        for annotation in annotations['annotations']
        for segment in annotation['segments_info'] if not segment['iscrowd']
    }
    # The logged values are those that are returned.
    logged = json.loads(next(root.glob('shifted/*/*.json')).read_text())
    for name in shown:
        assert {f'coco_panoptic/PQ/{name}', f'semantic/IoU/{name}'} <= set(metrics) & set(logged)
        assert (f'coco/{name}_precision' in logged) == (name in THINGS)


def test_all_tasks__one_forward_pass(root, monkeypatch):
    calls = []
    forward = OracleDetector.forward
    monkeypatch.setattr(OracleDetector, 'forward',
                        lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs))
    _test(root, 'once', '--all-tasks', '--cfg-options', 'test_dataloader.batch_size=1')
    assert len(calls) == 3


@pytest.mark.parametrize('arguments', [[], ['--all-tasks'], ['--all-tasks', '--show-dir', 'shown']])
@pytest.mark.parametrize('num_workers', [0, 2])
def test_annotations__are_decoded_once(root, tmp_path, count_decodes, arguments, num_workers):
    _test(root, tmp_path / 'work', *arguments, '--cfg-options', f'test_dataloader.num_workers={num_workers}',
          'test_dataloader.batch_size=2')
    decodes = count_decodes(root / 'data' / 'annotations' / 'panoptic_val')
    assert len(decodes) == 3 and set(decodes.values()) == {1}, decodes
    shown = list((tmp_path / 'work').glob('*/shown/*'))
    assert len(shown) == (3 if '--show-dir' in arguments else 0)


def test_all_tasks__separate_instance_annotations(root):
    # The bounding boxes of the objects as masks.
    panoptic = json.loads((root / 'data' / 'annotations' / 'panoptic_val.json').read_text())
    annotations = []
    for annotation in panoptic['annotations']:
        for segment in annotation['segments_info']:
            x, y, width, height = segment['bbox']
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotations.append(
                dict(
                    segment,
                    id=len(annotations) + 1,
                    image_id=annotation['image_id'],
                    segmentation=[[float(value) for value in corners]]))
    dump(dict(panoptic, annotations=annotations), root / 'instances.json')
    metrics = _test(root, 'instances', '--all-tasks', '--instance-ann', root / 'instances.json')
    assert metrics['coco_panoptic/PQ'] == 100 and 0 < metrics['coco/segm_mAP'] < 0.9


@pytest.fixture
def test_list(root):
    """An image list of mmdet's gen_coco_panoptic_test_info.py: images and categories, without annotations."""
    panoptic = json.loads((root / 'data' / 'annotations' / 'panoptic_val.json').read_text())
    del panoptic['annotations']
    path = root / 'data' / 'annotations' / 'panoptic_image_info_test-dev2017.json'
    path.write_text(json.dumps(panoptic))
    return path


def test_format_only__submission_without_annotations(root, test_list):
    prefix = root / 'out' / 'panoptic_test-dev2017_oracle_results'
    arguments = (root / 'oracle.py', root / 'oracle.pth', '--work-dir', root / 'submitted', '--format-only',
                 prefix, '--cfg-options', f'test_dataloader.dataset.ann_file=annotations/{test_list.name}')
    _run(*arguments)
    names = [f'{number:012d}.png' for number in (1, 2, 3)]
    with zipfile.ZipFile(f'{prefix}.zip') as archive:
        assert archive.namelist() == [f'{prefix.name}.json', *(f'{prefix.name}/{name}' for name in names)]
        annotations = json.loads(archive.read(f'{prefix.name}.json'))['annotations']
    assert annotations == json.loads(Path(f'{prefix}.json').read_text())['annotations']
    assert [(a['image_id'], a['file_name']) for a in annotations] == list(zip((1, 2, 3), names))
    first_thing = json.loads(test_list.read_text())['categories'][0]
    for annotation in annotations:
        assert annotation['segments_info'] == [
            dict(id=1, category_id=first_thing['id'], area=32 * 65, bbox=[0, 0, 65, 32])
        ]
        ids = read_segment_ids(str(prefix / annotation['file_name']))
        assert (ids[:32] == 1).all() and not ids[32:].any()

    with pytest.raises(FileExistsError, match='panoptic_test-dev2017_oracle_results.json'):
        _run(*arguments)


@pytest.mark.parametrize('name', ['val.json', 'val', 'val.zip'])
def test_options__existing_predictions_are_not_overwritten(root, tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match=name):
        _run(root / 'oracle.py', root / 'oracle.pth', '--cfg-options',
             f'test_evaluator.outfile_prefix={tmp_path}/val', 'test_evaluator.ann_file=none.json')


@pytest.mark.parametrize('arguments, message', [
    (['--format-only', 'x', '--all-tasks'], '--format-only'),
    (['--format-only', 'x', '--out', 'y.json'], '--format-only'),
    (['--instance-ann', 'x.json'], '--all-tasks'),
])
def test_options__that_exclude_each_other(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        _run(root / 'oracle.py', root / 'oracle.pth', *arguments)
