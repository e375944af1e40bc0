import argparse

import mmcv
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from remax_mm.apis import (PanopticInferencer, add_test_time_arguments, apply_test_time_arguments, use_tiles,
                           use_tta)
from remax_mm.models.test_time_augs import scaled_canvas
from tests.color_model import CAT, CAT_2, DOG, GRASS, SKY, assert_same_segments, color_detector, paint, truth
from tests.conftest import REPOSITORY

S = slice
BASE = REPOSITORY / 'configs' / '_base_'
LARGE = paint((90, 150), (SKY, S(0, 40), S(None)), (GRASS, S(60, None), S(None)), (CAT, S(30, 70), S(10, 80)),
              (CAT_2, S(30, 70), S(80, 120)), (DOG, S(2, 20), S(130, 145)))


def _config(**options):
    metainfo = dict(
        classes=('cat', 'dog', 'sky', 'grass'), thing_classes=('cat', 'dog'), stuff_classes=('sky', 'grass'))
    pipeline = [
        dict(type='LoadImageStrict'),
        dict(type='Resize', scale=(65, 65), keep_ratio=True),
        dict(type='LoadPanopticMap'),
        dict(type='PackPanopticInputs')
    ]
    dataset = dict(
        type='CocoPanopticMapDataset',
        ann_file='nowhere.json',
        metainfo=metainfo,
        test_mode=True,
        data_prefix=dict(img='nowhere'),
        pipeline=pipeline)
    return Config(
        dict(
            default_scope='mmdet',
            model=color_detector(),
            test_dataloader=dict(dataset=dict(type='RepeatDataset', times=1, dataset=dataset)),
            **options))


def _steps(config):
    return [step['type'] for step in config.test_dataloader.dataset.dataset.pipeline]


def test_use_tiles__config():
    config = _config()
    use_tiles(config, 65, 16)
    assert _steps(config) == ['LoadImageStrict', 'LoadPanopticMap', 'PackPanopticInputs']
    assert (config.model.type, config.model.tile_size, config.model.overlap) == ('TiledPanopticModel', 65, 16)
    assert config.model.module == _config().model


def test_use_tta__config_with_views_of_its_own():
    views = [dict(type='LoadImageStrict'), dict(type='TestTimeAug', transforms=[])]
    config = _config(tta_pipeline=views, tta_model=dict(type='OtherTTAModel', weight=2))
    use_tta(config)
    assert _steps(config) == ['LoadImageStrict', 'TestTimeAug']
    assert config.model == dict(type='OtherTTAModel', weight=2, module=_config().model)


def test_use_tta__image_and_mirror_image_where_the_config_has_none():
    config = _config()
    use_tta(config)
    assert _steps(config) == ['LoadImageStrict', 'Resize', 'LoadPanopticMap', 'TestTimeAug']
    flips, packs = config.test_dataloader.dataset.dataset.pipeline[-1].transforms
    assert [step.prob for step in flips] == [0, 1] and [step.type for step in packs] == ['PackPanopticInputs']
    assert config.model.type == 'PanopticTTAModel' and config.model.module == _config().model


@pytest.mark.parametrize('arguments, model',
                         [([], 'MaskTransformer'), (['--tta'], 'PanopticTTAModel'),
                          (['--tile', '65', '97', '--overlap', '8'], 'TiledPanopticModel')])
def test_arguments(arguments, model):
    parser = argparse.ArgumentParser()
    add_test_time_arguments(parser)
    config = _config()
    apply_test_time_arguments(parser.parse_args(arguments), config)
    assert config.model.type == model
    if arguments[1:]:
        assert list(config.model.tile_size) == [65, 97] and config.model.overlap == 8


def test_arguments__one_way_only(capsys):
    parser = argparse.ArgumentParser()
    add_test_time_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(['--tta', '--tile', '65'])
    assert 'not allowed with' in capsys.readouterr().err


def test_inferencer__tiles_of_a_large_image(tmp_path):
    """At the original resolution every pixel is right; shrunk to the crop, borders are not."""
    mmcv.imwrite(LARGE, str(tmp_path / 'large.png'))
    config = _config()
    use_tiles(config, 65, 16)
    for image in (LARGE, tmp_path / 'large.png'):
        result, = PanopticInferencer(config, device='cpu')(image)
        assert [segment['class_name'] for segment in result.segments_info].count('cat') == 2
        expected = truth(LARGE)
        labels = np.array([4, *(segment['label'] for segment in result.segments_info)])
        things = np.array([0, *(1000 * segment['is_thing'] for segment in result.segments_info)])
        assert_same_segments(labels[result.segment_map] + things[result.segment_map] * result.segment_map,
                             expected)
    plain, = PanopticInferencer(_config(), device='cpu')(LARGE)
    assert (labels[result.segment_map]
            != np.array([4, *(s['label'] for s in plain.segments_info)])[plain.segment_map]).any()


def test_inferencer__views(tmp_path):
    config = _config()
    use_tta(config)
    mmcv.imwrite(LARGE, str(tmp_path / 'large.png'))
    # Without an annotation to load, and with the weights of a checkpoint of the detector alone
    with DefaultScope.overwrite_default_scope('mmdet'):
        state = MODELS.build(color_detector()).state_dict()
    state['panoptic_head.scale'] += 1
    torch.save(dict(state_dict=state), tmp_path / 'detector.pth')
    merged = PanopticInferencer(config, str(tmp_path / 'detector.pth'), 'cpu')
    assert merged.model.module.panoptic_head.scale == 11
    plain = PanopticInferencer(_config(), str(tmp_path / 'detector.pth'), 'cpu')
    for image in (LARGE, tmp_path / 'large.png'):
        (one, ), (other, ) = merged(image), plain(image)
        np.testing.assert_array_equal(one.segment_map > 0, other.segment_map > 0)
        assert [segment['label']
                for segment in one.segments_info] == [segment['label'] for segment in other.segments_info]
        for ours, theirs in zip(one.segments_info, other.segments_info):
            assert ours['area'] == theirs['area']
            assert ours['score'] == pytest.approx(theirs['score'], abs=1e-5)


@pytest.mark.parametrize('views, data, size, sides', [
    ('views_641', 'coco_panoptic_641', (480, 640), [(481, 641), (361, 481), (601, 801)]),
    ('views_1281', 'ade20k_panoptic', (480, 640), [(961, 1281), (721, 961), (1201, 1601)]),
    ('views_cityscapes', 'cityscapes_panoptic', (1024, 2048), [(1024, 2048), (768, 1536), (1280, 2560)]),
])
def test_views__of_the_base_configs(tmp_path, views, data, size, sides):
    """Each size with its mirror image, that of the test pipeline first."""
    mmcv.imwrite(np.random.RandomState(0).randint(0, 256, (*size, 3), np.uint8), str(tmp_path / 'a.png'))
    bases = [str(BASE / 'datasets' / f'{data}.py'), str(BASE / 'test_time' / f'{views}.py')]
    (tmp_path / 'config.py').write_text(f'_base_ = {bases}')
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
    # The canvases have sides of 32k + 1, as they are in the scale of the crop.
    crop = Config.fromfile(f'{BASE}/datasets/{data}.py').image_size
    assert [scaled_canvas(crop, shapes[0], shape) for shape in sides
            ] == [tuple(round((side - 1) * scale) + 1 for side in crop) for scale in (1, 0.75, 1.25)]
