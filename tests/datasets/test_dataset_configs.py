"""The dataset configs: they can be built and run, and have the numbers of deeplab2."""
from pathlib import Path

import numpy as np
import pytest
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose

from remax_mm.datasets.mini_panoptic import write_mini_panoptic
from tests.datasets.original_layouts import run_converter, write_ade20k, write_cityscapes

FOLDER = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'datasets'

PAPER_STEPS = ['ColorPolicy', 'RandomPad', 'RandomCrop', 'RandomFlip']


def _steps(pipeline):
    return {step.type: step for step in pipeline}


def _linspace(low, high, step=0.1):
    """Scales of deeplab2 (data/preprocessing/preprocess_utils.py, get_random_scale)."""
    return np.linspace(low, high, int((high - low) / step + 1 + 1e-6))


def _longer_sides(side, scales):
    """Lengths int((side - 1) * scale + 1) of the longer side."""
    return [(int((side - 1) * scale + 1 + 1e-6), ) * 2 for scale in scales]


@pytest.mark.parametrize('name, side, low, high', [('coco_panoptic', 1281, 0.3, 1.7),
                                                   ('coco_panoptic_641', 641, 0.3, 1.7),
                                                   ('ade20k_panoptic', 1281, 0.5, 2.0),
                                                   ('ade20k_panoptic_641', 641, 0.5, 2.0)])
def test_config__augmentation_of_the_paper(name, side, low, high):
    config = Config.fromfile(FOLDER / f'{name}.py')
    train = _steps(config.train_dataloader.dataset.pipeline)
    assert list(train) == [
        'LoadImageStrict', 'LoadPanopticMap', 'RandomChoiceResize', *PAPER_STEPS, 'PanopticCopyPaste',
        'PackPanopticInputs'
    ]
    partner = _steps(train['PanopticCopyPaste'].partner_pipeline)
    assert list(partner) == list(train)[:-2]
    for steps, factor in ((train, 1), (partner, 0.5)):
        scales = _linspace(low * factor, high * factor)
        assert list(map(tuple, steps['RandomChoiceResize'].scales)) == _longer_sides(side, scales)
        assert tuple(steps['RandomPad'].size) == tuple(steps['RandomCrop'].crop_size) == (side, side)
        assert 'magnitude_scale' not in steps['ColorPolicy']
    for loader in (config.val_dataloader, config.test_dataloader):
        test = _steps(loader.dataset.pipeline)
        assert list(test) == ['LoadImageFromFile', 'Resize', 'LoadSegmentIds', 'PackPanopticInputs']
        assert tuple(test['Resize'].scale) == (side, side) and loader.dataset.test_mode
    for step in [*config.train_pipeline, *config.test_pipeline]:
        TRANSFORMS.build(step)


def test_config__augmentation_of_cityscapes():
    config = Config.fromfile(FOLDER / 'cityscapes_panoptic.py')
    train = _steps(config.train_dataloader.dataset.pipeline)
    partner = _steps(train['PanopticCopyPaste'].partner_pipeline)
    assert list(train)[:-2] == list(partner) == [
        'LoadImageStrict', 'LoadPanopticMap', 'RandomChoice', *PAPER_STEPS
    ]
    np.random.seed(0)
    for steps, scales in ((train, _linspace(0.5, 2.0)), (partner, _linspace(0.25, 1.0))):
        resize = TRANSFORMS.build(steps['RandomChoice'])
        sizes = {resize(dict(img=np.zeros((16, 32, 3), np.uint8)))['img'].shape[:2] for _ in range(300)}
        assert sizes == {(round(16 * scale), round(32 * scale)) for scale in scales}
        assert tuple(steps['RandomCrop'].crop_size) == (2049, 1025)  # width, height
        assert steps['ColorPolicy'].magnitude_scale == 0.2

    crop = Compose(config.train_pipeline[2:7])  # without loading, pasting and packing
    photo = dict(img=np.full((512, 1024, 3), 9, np.uint8), gt_seg_map=np.ones((512, 1024), np.uint8))
    results = crop(photo)
    assert results['img'].shape[:2] == results['gt_seg_map'].shape == tuple(config.image_size) == (1025, 2049)
    assert list(_steps(config.test_pipeline)) == ['LoadImageFromFile', 'LoadSegmentIds', 'PackPanopticInputs']


def test_config__mini_dataset_without_color_and_copy_paste():
    config = Config.fromfile(FOLDER / 'mini_panoptic.py')
    train = _steps(config.train_dataloader.dataset.pipeline)
    assert list(train) == [
        'LoadImageFromFile', 'LoadPanopticMap', 'RandomChoiceResize', *PAPER_STEPS[1:], 'PackPanopticInputs'
    ]
    scales = _longer_sides(129, _linspace(0.8, 1.3))
    assert list(map(tuple, train['RandomChoiceResize'].scales)) == scales
    assert tuple(train['RandomPad'].size) == tuple(train['RandomCrop'].crop_size) == (129, 129)
    assert list(_steps(
        config.test_pipeline)) == ['LoadImageFromFile', 'Resize', 'LoadSegmentIds', 'PackPanopticInputs']


def test_config__641_on_coco_images(coco_sample):
    config = Config.fromfile(FOLDER / 'coco_panoptic_641.py')
    dataset = config.val_dataloader.dataset
    dataset.data_root = str(coco_sample)
    np.random.seed(0)
    data = DATASETS.build(dataset)
    for i in range(len(data)):
        sample = data[i]['data_samples']
        assert max(sample.img_shape) == 641  # the longer side
        assert sample.gt_annotation.ids.shape == sample.ori_shape
    dataset.update(pipeline=config.train_pipeline, test_mode=False)
    data = DATASETS.build(dataset)
    for i in range(len(data)):
        packed = data[i]
        assert packed['inputs'].shape == (3, 641, 641)
        assert packed['data_samples'].gt_panoptic_seg.segment_map.shape == (1, 641, 641)


def test_config__mini_dataset_gives_full_crops(tmp_path):
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
            sample = packed['data_samples']
            ids = sample.gt_annotation.ids[None] if data.test_mode else sample.gt_panoptic_seg.segment_map
            assert ids.shape == (1, 129, 129)


@pytest.mark.parametrize('name, write, converter, crop',
                         [('cityscapes_panoptic', write_cityscapes, 'cityscapes_panoptic', (1025, 2049)),
                          ('ade20k_panoptic_641', write_ade20k, 'ade20k_panoptic', (641, 641))])
def test_config__runs_on_converted_files(tmp_path, name, write, converter, crop):
    write(tmp_path, contents=('mixed', 'stuff', 'crowd'))
    run_converter(converter, tmp_path)
    config = Config.fromfile(FOLDER / f'{name}.py')
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.dataset.data_root = str(tmp_path)
    np.random.seed(0)
    train = DATASETS.build(config.train_dataloader.dataset)
    for i in range(len(train)):
        packed = train[i]
        segment_map = packed['data_samples'].gt_panoptic_seg.segment_map
        segments = packed['data_samples'].gt_segments
        assert packed['inputs'].shape[1:] == segment_map.shape[1:] == crop
        assert np.unique(segment_map[segment_map > 0]).tolist() == list(range(1, len(segments) + 1))
    for sample in DATASETS.build(config.val_dataloader.dataset):
        sample = sample['data_samples']
        assert sample.gt_annotation.ids.shape == sample.ori_shape


def test_config__random_scale_resizes_the_longer_side():
    config = Config.fromfile(FOLDER / 'coco_panoptic_641.py')
    np.random.seed(0)
    resize = Compose([config.train_pipeline[2]])
    sides = {resize(dict(img=np.zeros((40, 60, 3), np.uint8)))['img'].shape[:2] for _ in range(200)}
    assert {max(side) for side in sides} == {64 * tenth + 1 for tenth in range(3, 18)}
    assert all(abs(height - width * 2 / 3) <= 0.5 for height, width in sides)
