"""Options of tests and predictions, and that the inferencer runs the changed config."""
import re

import mmcv
import numpy as np
import pytest
import torch
from mmdet.registry import METRICS, MODELS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from remax_mm.apis import PanopticInferencer
from remax_mm.apis.evaluation_config import (check_prefixes, draw_predictions, evaluate_all_tasks,
                                             format_only, load_weights, use_tiles, use_tta)
from remax_mm.models.test_time_augs import scaled_canvas
from tests.color_config import TRAINING_OPTIONS, color_config
from tests.color_model import CAT, CAT_2, DOG, GRASS, SKY, assert_same_segments, color_detector, paint, truth
from tests.conftest import REPOSITORY

S = slice
BASE = REPOSITORY / 'configs' / '_base_'
MINI = REPOSITORY / 'configs' / 'mini' / 'kmax_mnv3-s_1xb8-1k_mini-129.py'
LARGE = paint((90, 150), (SKY, S(0, 40), S(None)), (GRASS, S(60, None), S(None)), (CAT, S(30, 70), S(10, 80)),
              (CAT_2, S(30, 70), S(80, 120)), (DOG, S(2, 20), S(130, 145)))


def _steps(config):
    return [step['type'] for step in config.test_dataloader.dataset.dataset.pipeline]


def test_load_weights__checks_that_they_fill_the_model():
    config = load_weights(color_config(custom_hooks=[dict(type='Other')]), 'http://host/a.pth')
    assert config.load_from == 'http://host/a.pth'
    assert config.custom_hooks == [dict(type='Other'), dict(type='CheckWeightsHook')]
    with pytest.raises(FileNotFoundError, match='none.pth'):
        load_weights(config, 'none.pth')


def test_evaluate_all_tasks__equals_the_config_of_all_tasks():
    config = Config.fromfile(MINI)
    config.test_evaluator.classwise = True
    config = evaluate_all_tasks(config)
    expected = Config.fromfile(MINI.with_name('kmax-all-tasks_mnv3-s_1xb8-1k_mini-129.py'))
    assert config.model.test_cfg == expected.model.test_cfg

    # Metrics of the config stay.
    expected.test_evaluator[1].metric = ['segm', 'bbox']
    expected = evaluate_all_tasks(expected, 'instances.json')
    assert expected.test_evaluator[1] == dict(
        type='PanopticInstanceAPMetric',
        classwise=True,
        backend_args=None,
        metric=['segm', 'bbox'],
        ann_file='instances.json')
    del expected.test_evaluator[1]['ann_file']
    for evaluator in (config.test_evaluator, expected.val_evaluator, expected.test_evaluator):
        metrics = [METRICS.build(metric) for metric in evaluator]
        assert [type(metric).__name__ for metric in metrics
                ] == ['PanopticQualityMetric', 'PanopticInstanceAPMetric', 'PanopticSemanticIoUMetric']
        assert all(metric.classwise for metric in metrics)


def test_format_only__reads_no_ground_truth_below_a_wrapper(tmp_path):
    config = Config.fromfile(MINI)
    data = config.test_dataloader.dataset
    data.pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='mmdet.LoadPanopticAnnotations'), *data.pipeline[2:]
    ]
    config.test_dataloader.dataset = dict(type='RepeatDataset', times=1, dataset=data)
    config = format_only(config, str(tmp_path / 'out'))
    data = config.test_dataloader.dataset.dataset
    assert [step['type'] for step in data.pipeline] == ['LoadImageFromFile', 'PackPanopticInputs']
    assert 'seg' not in data.data_prefix
    assert config.test_evaluator.ann_file == 'data/mini_panoptic/annotations/panoptic_val.json'
    assert config.test_evaluator.format_only and config.test_evaluator.outfile_prefix == str(tmp_path / 'out')


@pytest.mark.parametrize('several', [False, True])
def test_check_prefixes__nothing_is_overwritten(tmp_path, several):
    evaluator = dict(type='PanopticQualityMetric', outfile_prefix=str(tmp_path / 'val'))
    config = color_config(test_evaluator=[dict(type='Other'), evaluator] if several else evaluator)
    check_prefixes(config)
    for name in ('val.json', 'val', 'val.zip'):
        (tmp_path / name).touch()
        with pytest.raises(FileExistsError, match=f'{name} exists'):
            check_prefixes(config)
        (tmp_path / name).unlink()


def test_use_tiles__config():
    config = use_tiles(color_config(), 65, 16)
    assert _steps(config) == ['LoadImageStrict', 'LoadPanopticMap', 'PackPanopticInputs']
    assert (config.model.type, config.model.tile_size, config.model.overlap) == ('TiledPanopticModel', 65, 16)
    assert config.model.module == color_config().model


def test_use_tta__views_of_the_config():
    views = [dict(type='LoadImageStrict'), dict(type='TestTimeAug', transforms=[])]
    config = use_tta(color_config(tta_pipeline=views, tta_model=dict(type='OtherTTAModel', weight=2)))
    assert _steps(config) == ['LoadImageStrict', 'TestTimeAug']
    assert config.model == dict(type='OtherTTAModel', weight=2, module=color_config().model)


def test_use_tta__image_and_mirror_image_by_default():
    config = use_tta(color_config())
    assert _steps(config) == ['LoadImageStrict', 'Resize', 'LoadPanopticMap', 'TestTimeAug']
    flips, packs = config.test_dataloader.dataset.dataset.pipeline[-1].transforms
    assert [step.prob for step in flips] == [0, 1] and [step.type for step in packs] == ['PackPanopticInputs']
    assert config.model.type == 'PanopticTTAModel' and config.model.module == color_config().model


def test_draw_predictions__options_of_the_hook():
    config = draw_predictions(color_config(**TRAINING_OPTIONS), show=True, wait_time=3.)
    assert config.default_hooks.visualization == dict(
        type='DetVisualizationHook', draw=True, show=True, wait_time=3.)
    config = draw_predictions(color_config(**TRAINING_OPTIONS), show_dir='shown')
    assert config.default_hooks.visualization == dict(
        type='DetVisualizationHook', draw=True, show=False, wait_time=2., test_out_dir='shown')
    with pytest.raises(ValueError, match='default_hooks.visualization'):
        draw_predictions(color_config(), show=True)


def test_inferencer__tiles_of_a_large_image(tmp_path):
    """At the original size every pixel is correct; resized to the crop size, borders are not."""
    mmcv.imwrite(LARGE, str(tmp_path / 'large.png'))
    config = use_tiles(color_config(), 65, 16)
    for image in (LARGE, tmp_path / 'large.png'):
        result, = PanopticInferencer(config, device='cpu')(image)['predictions']
        assert [segment['class_name'] for segment in result.segments_info].count('cat') == 2
        expected = truth(LARGE)
        labels = np.array([4, *(segment['label'] for segment in result.segments_info)])
        things = np.array([0, *(1000 * segment['is_thing'] for segment in result.segments_info)])
        assert_same_segments(labels[result.segment_map] + things[result.segment_map] * result.segment_map,
                             expected)
    plain, = PanopticInferencer(color_config(), device='cpu')(LARGE)['predictions']
    assert (labels[result.segment_map]
            != np.array([4, *(s['label'] for s in plain.segments_info)])[plain.segment_map]).any()


def test_inferencer__views(tmp_path):
    config = use_tta(color_config())
    mmcv.imwrite(LARGE, str(tmp_path / 'large.png'))
    # No annotation is loaded, and the weights are those of a checkpoint of the detector.
    with DefaultScope.overwrite_default_scope('mmdet'):
        state = MODELS.build(color_detector()).state_dict()
    state['panoptic_head.scale'] += 1
    torch.save(dict(state_dict=state), tmp_path / 'detector.pth')
    merged = PanopticInferencer(config, str(tmp_path / 'detector.pth'), 'cpu')
    assert merged.model.module.panoptic_head.scale == 11
    plain = PanopticInferencer(color_config(), str(tmp_path / 'detector.pth'), 'cpu')
    for image in (LARGE, tmp_path / 'large.png'):
        (one, ), (other, ) = merged(image)['predictions'], plain(image)['predictions']
        np.testing.assert_array_equal(one.segment_map > 0, other.segment_map > 0)
        assert [segment['label']
                for segment in one.segments_info] == [segment['label'] for segment in other.segments_info]
        for ours, theirs in zip(one.segments_info, other.segments_info):
            assert ours['area'] == theirs['area']
            assert ours['score'] == pytest.approx(theirs['score'], abs=1e-5)


@pytest.mark.parametrize('data, size, scales, sides', [
    ('coco_panoptic_641', (480, 640), (641, 481, 801), [(481, 641), (361, 481), (601, 801)]),
    ('ade20k_panoptic', (480, 640), (1281, 961, 1601), [(961, 1281), (721, 961), (1201, 1601)]),
    ('cityscapes_panoptic', (1024, 2048), (1024, 768, 1280), [(1024, 2048), (768, 1536), (1280, 2560)]),
])
def test_views__scales_of_the_docs(tmp_path, data, size, scales, sides):
    """Each size with its mirror image, the size of the test pipeline first."""
    mmcv.imwrite(np.random.RandomState(0).randint(0, 256, (*size, 3), np.uint8), str(tmp_path / 'a.png'))
    code = re.search(r'```python\n(_base_.*?)```', (REPOSITORY / 'docs/test_time.md').read_text(),
                     re.DOTALL)[1]
    base, code = code.split('\n', 1)
    assert (REPOSITORY / 'configs/remax' / base.split("'")[1]).resolve().is_file()
    code = code.replace('(641, 481, 801)', str(scales))
    if data == 'cityscapes_panoptic':
        code = code.replace('scale=(side, side)', 'scale=(2 * side, side)')
    base = str(BASE / 'datasets' / f'{data}.py')
    (tmp_path / 'config.py').write_text(f'_base_ = {base!r}\n{code}')
    config = Config.fromfile(tmp_path / 'config.py')
    *steps, _, pack = config.test_pipeline
    plain = Compose([*steps, pack])(dict(img_path=str(tmp_path / 'a.png'), img_id=0))

    found = Compose(config.tta_pipeline)(dict(img_path=str(tmp_path / 'a.png'), img_id=0))
    shapes = [tuple(image.shape[1:]) for image in found['inputs']]
    assert shapes == [side for side in sides for _ in range(2)]
    assert torch.equal(found['inputs'][0], plain['inputs'])
    assert [sample.flip for sample in found['data_samples']] == [False, True] * 3
    for image, mirrored in zip(found['inputs'][::2], found['inputs'][1::2]):
        assert torch.equal(image.flip(-1), mirrored)
    # The padded sizes are 32 k + 1 like the crop size, multiplied by the scale.
    crop = Config.fromfile(f'{BASE}/datasets/{data}.py').image_size
    assert [scaled_canvas(crop, shapes[0], shape) for shape in sides
            ] == [tuple(round((side - 1) * scale) + 1 for side in crop) for scale in (1, 0.75, 1.25)]
