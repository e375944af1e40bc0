"""MMDetection's own inferencer on a panoptic model, as docs/mmdet_tools.md shows it."""
import json

import mmcv
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from remax_mm.panoptic_format import read_segment_ids
from tests.color_model import (CAT, DOG, GRASS, NUM_CLASSES, SKY, assert_same_segments, color_detector, paint,
                               truth)
from tests.missing_dataset import missing_dataset

S = slice
NAMES = ('cat', 'dog', 'sky', 'grass')
IMAGE = paint((48, 64), (SKY, S(0, 20), S(None)), (GRASS, S(32, None), S(None)), (CAT, S(8, 40), S(8, 32)),
              (DOG, S(4, 28), S(40, 60)))


@pytest.fixture
def inferencer(tmp_path):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadSegmentIds'),
        dict(type='PackPanopticInputs'),
    ]
    metainfo = dict(classes=NAMES, thing_classes=NAMES[:2], stuff_classes=NAMES[2:])
    dataset = missing_dataset(metainfo, pipeline)
    config = Config(
        dict(
            model=color_detector(),
            test_dataloader=dict(dataset=dataset),
            visualizer=dict(type='PanopticVisualizer', name='det_inferencer')))
    with DefaultScope.overwrite_default_scope('mmdet'):
        state = MODELS.build(config.model).state_dict()
    torch.save(
        dict(state_dict=state, meta=dict(dataset_meta=dict(classes=NAMES, thing_classes=NAMES[:2]))),
        tmp_path / 'colors.pth')
    return DetInferencer(config, str(tmp_path / 'colors.pth'), device='cpu', show_progress=False)


def _check(ids):
    """The ids of MMDetection's PNGs are label + 1000 * instance, and 0 for void."""
    assert_same_segments(np.where(ids == 0, NUM_CLASSES, ids), truth(IMAGE))


def test_det_inferencer__of_an_array(inferencer):
    result = inferencer(IMAGE.copy(), return_vis=True)
    colors = result['predictions'][0]['panoptic_seg'].astype(np.int64)
    _check(colors @ (1, 256, 256**2))
    assert result['visualization'][0].shape[0] >= IMAGE.shape[0]


def test_det_inferencer__of_a_file(inferencer, tmp_path):
    mmcv.imwrite(IMAGE, str(tmp_path / 'image.png'))
    assert set(inferencer(str(tmp_path / 'image.png'))['predictions'][0]) == {'panoptic_seg'}
    inferencer(str(tmp_path / 'image.png'), out_dir=str(tmp_path / 'out'), no_save_pred=False)
    assert (tmp_path / 'out' / 'vis' / 'image.png').is_file()
    result = json.loads((tmp_path / 'out' / 'preds' / 'image.json').read_text())
    assert result['panoptic_seg_path'].endswith('image_panoptic_seg.png')
    _check(read_segment_ids(result['panoptic_seg_path']))
