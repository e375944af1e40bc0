"""The data set configs: they build, run, and agree with the numbers of deeplab2's configs."""
from pathlib import Path

import numpy as np
import pytest
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose

from remax_mm.datasets.mini_panoptic import write_mini_panoptic

FOLDER = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'datasets'


@pytest.mark.parametrize('name, side', [('coco_panoptic', 1281), ('coco_panoptic_641', 641),
                                        ('mini_panoptic', 129)])
def test_config__crops_and_scales(name, side):
    config = Config.fromfile(FOLDER / f'{name}.py')
    train = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    tenths = range(8, 14) if name == 'mini_panoptic' else range(3, 18)
    # deeplab2: a side of x pixels becomes int((x - 1) * scale + 1).
    expected = [(int((side - 1) * tenth / 10 + 1 + 1e-9), ) * 2 for tenth in tenths]
    assert [tuple(scale) for scale in train['RandomChoiceResize'].scales] == expected
    assert tuple(train['RandomPad'].size) == tuple(train['RandomCrop'].crop_size) == (side, side)
    assert list(train) == [
        'LoadImageFromFile', 'LoadPanopticMap', 'RandomChoiceResize', 'RandomPad', 'RandomCrop', 'RandomFlip',
        'PackPanopticInputs'
    ]
    for loader in (config.val_dataloader, config.test_dataloader):
        test = {step.type: step for step in loader.dataset.pipeline}
        assert list(test) == ['LoadImageFromFile', 'Resize', 'LoadPanopticMap', 'PackPanopticInputs']
        assert tuple(test['Resize'].scale) == (side, side) and loader.dataset.test_mode
    for step in [*config.train_pipeline, *config.test_pipeline]:
        TRANSFORMS.build(step)


def test_config__641_on_real_photos(reference_dir):
    config = Config.fromfile(FOLDER / 'coco_panoptic_641.py')
    dataset = config.val_dataloader.dataset
    dataset.data_root = str(reference_dir / 'data' / 'coco_sample')
    np.random.seed(0)
    data = DATASETS.build(dataset)
    for i in range(len(data)):
        sample = data[i]['data_samples']
        assert max(sample.img_shape) == 641  # the longer side
        assert sample.gt_panoptic_seg.segment_map.shape[1:] == sample.ori_shape
    dataset.update(pipeline=config.train_pipeline, test_mode=False)
    data = DATASETS.build(dataset)
    for i in range(len(data)):
        packed = data[i]
        assert packed['inputs'].shape == (3, 641, 641)
        assert packed['data_samples'].gt_panoptic_seg.segment_map.shape == (1, 641, 641)


def test_config__mini_set_trains_on_full_crops(tmp_path):
    write_mini_panoptic(tmp_path, 4, 2)
    config = Config.fromfile(FOLDER / 'mini_panoptic.py')
    np.random.seed(0)
    for loader, count in ((config.train_dataloader, 4), (config.val_dataloader, 2)):
        loader.dataset.data_root = str(tmp_path)
        data = DATASETS.build(loader.dataset)
        assert len(data) == count
        for i in range(count):
            packed = data[i]
            assert packed['inputs'].shape == (3, 129, 129)
            assert packed['data_samples'].gt_panoptic_seg.segment_map.shape == (1, 129, 129)


def test_config__random_scale_resizes_the_longer_side():
    config = Config.fromfile(FOLDER / 'coco_panoptic_641.py')
    np.random.seed(0)
    resize = Compose([config.train_pipeline[2]])
    sides = {resize(dict(img=np.zeros((40, 60, 3), np.uint8)))['img'].shape[:2] for _ in range(200)}
    assert {max(side) for side in sides} == {64 * tenth + 1 for tenth in range(3, 18)}
    assert all(abs(height - width * 2 / 3) <= 0.5 for height, width in sides)
