"""The command lines of test-time augmentation and tiled inference, with a model that segments by color."""
import json
import runpy
import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope

from remax_mm.panoptic_format import write_segment_ids
from tests.color_model import CAT, CAT_2, DOG, GRASS, NUM_CLASSES, SKY, color_detector, paint, truth

REPOSITORY = Path(__file__).resolve().parents[2]
S = slice
NAMES = ('cat', 'dog', 'sky', 'grass')
PAINTINGS = (
    paint((91, 130), (SKY, S(0, 40), S(None)), (GRASS, S(60, None), S(None)), (CAT, S(31, 71), S(11, 80)),
          (CAT_2, S(31, 71), S(80, 121)), (DOG, S(3, 20), S(101, 127))),
    paint((130, 67), (GRASS, S(None), S(None)), (DOG, S(5, 117), S(13, 48))),
)

CONFIG = """
_base_ = '{repository}/configs/_base_/default_runtime.py'
custom_imports = dict(imports=['remax_mm', 'tests.color_model'], allow_failed_imports=False)
model = {model}
test_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoPanopticMapDataset', data_root='{root}', ann_file='panoptic.json', test_mode=True,
        metainfo=dict(classes={names}, thing_classes={names}[:2], stuff_classes={names}[2:]),
        data_prefix=dict(img='images', seg='panoptic'),
        pipeline=[dict(type='LoadImageStrict'), dict(type='Resize', scale=(65, 65), keep_ratio=True),
                  dict(type='LoadSegmentIds'), dict(type='PackPanopticInputs')]))
test_evaluator = dict(type='PanopticQualityMetric')
test_cfg = dict(type='TestLoop')
visualizer = dict(name='test_time')  # mmengine caches visualizers by name, with their folder
"""

VIEWS = """
_base_ = 'colors.py'
tta_pipeline = [
    dict(type='LoadImageStrict'),
    dict(type='LoadSegmentIds'),
    dict(type='TestTimeAug',
         transforms=[[dict(type='Resize', scale=(side, side), keep_ratio=True) for side in (65, 97)],
                     [dict(type='PackPanopticInputs')]])]
"""


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Drawn images larger than the crop size of 65 in the COCO panoptic format, a config and a checkpoint."""
    root = tmp_path_factory.mktemp('paintings')
    annotations = []
    for index, painting in enumerate(PAINTINGS):
        mmcv.imwrite(painting, str(root / 'images' / f'{index}.png'))
        values, ids = np.unique(truth(painting), return_inverse=True)
        ids = np.where(truth(painting) == NUM_CLASSES, 0, 1 + ids.reshape(painting.shape[:2]))
        write_segment_ids(root / 'panoptic' / f'{index}.png', ids)
        segments = [
            dict(id=number, category_id=1 + value % 1000, iscrowd=0)
            for number, value in enumerate(values.tolist(), start=1) if value != NUM_CLASSES
        ]
        annotations.append(dict(image_id=index, file_name=f'{index}.png', segments_info=segments))
    images = [
        dict(id=index, file_name=f'{index}.png', height=painting.shape[0], width=painting.shape[1])
        for index, painting in enumerate(PAINTINGS)
    ]
    categories = [dict(id=label + 1, name=name, isthing=int(label < 2)) for label, name in enumerate(NAMES)]
    (root / 'panoptic.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories)))

    (root / 'colors.py').write_text(
        CONFIG.format(repository=REPOSITORY, root=root, model=color_detector(), names=NAMES))
    (root / 'views.py').write_text(VIEWS)
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.save(dict(state_dict=MODELS.build(color_detector()).state_dict()), root / 'colors.pth')
    return root


def _run(script, *arguments):
    argv, sys.argv = sys.argv, [script, *map(str, arguments)]
    try:
        return runpy.run_path(str(REPOSITORY / script), run_name='__main__')
    finally:
        sys.argv = argv


def _test(root, *arguments):
    metrics = root / 'metrics.json'
    _run('tools/test.py', root / 'colors.py', root / 'colors.pth', '--work-dir', root / 'work', '--out',
         metrics, *arguments)
    return json.loads(metrics.read_text())


def test_test__tiles(root):
    """Borders are exact with tiles only, and no segment is split or joined."""
    plain = _test(root)
    assert 60 < plain['coco_panoptic/PQ'] < 99.9 and plain['coco_panoptic/RQ'] == 100
    tiled = _test(root, '--tile', '65', '--overlap', '20', '--show-dir', root / 'shown')
    assert tiled['coco_panoptic/PQ'] == tiled['coco_panoptic/PQ_th'] == 100
    assert len(list((root / 'shown').glob('*.png'))) == 2


def test_test__views(root):
    """PQ, AP and mIoU are the same with views if the model is invariant to flips."""
    plain = _test(root, '--all-tasks')
    merged = _test(root, '--all-tasks', '--tta')
    assert set(plain) == set(merged) and any('mIoU' in key for key in plain)
    assert merged == pytest.approx(plain, abs=1e-3)


def test_test__tiles_give_no_instances(root):
    with pytest.raises(ValueError, match='--tile without --all-tasks'):
        _test(root, '--all-tasks', '--tile', '65')


@pytest.mark.parametrize('config', ['colors.py', 'views.py'])
def test_test__views_decode_annotations_once(root, tmp_path, count_decodes, config):
    _run('tools/test.py', root / config, root / 'colors.pth', '--work-dir', tmp_path, '--tta', '--all-tasks',
         '--show-dir', 'shown')
    assert count_decodes(root / 'panoptic') == {'0.png': 1, '1.png': 1}


@pytest.mark.parametrize('config', ['colors.py', 'views.py'])
def test_test__submission_of_views(root, config):
    prefix = root / 'submission' / config[:-3]
    _run('tools/test.py', root / config, root / 'colors.pth', '--work-dir', root / 'work', '--tta',
         '--format-only', prefix)
    annotations = json.loads(Path(f'{prefix}.json').read_text())['annotations']
    assert [sorted(segment['category_id'] for segment in a['segments_info'])
            for a in annotations] == [[1, 1, 2, 3, 4], [2, 4]]


@pytest.mark.parametrize('arguments', [['--tta'], ['--tile', 65, '--overlap', 20]])
def test_image_demo__views_and_tiles(root, arguments):
    out = root / f'demo{arguments[0]}'
    _run('demo/image_demo.py', root / 'images', root / 'colors.py', root / 'colors.pth', '--out-dir', out,
         '--device', 'cpu', *arguments)
    result = json.loads((out / '0.json').read_text())
    assert sorted(segment['class_name']
                  for segment in result['segments_info']) == ['cat', 'cat', 'dog', 'grass', 'sky']
    assert (result['height'], result['width']) == PAINTINGS[0].shape[:2]
