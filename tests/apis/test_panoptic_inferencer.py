import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import PixelData

from remax_mm.apis import (FailedImagesError, PanopticInferencer, PanopticResult, keep_segments, list_images,
                           save_overlay, save_segments)
from remax_mm.visualization import enlarge_small
from tests.missing_dataset import missing_dataset
from tests.tiny_model import detector_config


@MODELS.register_module(force=True)
class ThresholdDetector(BaseModel):
    """Pixels with blue above 128 are one thing, others are void; the input is BGR."""

    def __init__(self, scored=True, data_preprocessor=None):
        super().__init__(data_preprocessor=dict(type='mmdet.DetDataPreprocessor'))
        self.scored = scored
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        infos = dict(segments_info=[dict(id=3000, label=0, is_thing=True, score=0.7)]) if self.scored else {}
        for sample, image in zip(data_samples, inputs):
            sample.pred_panoptic_seg = PixelData(
                sem_seg=torch.where(image[:1] > 128, 3000, 2).int(), metainfo=infos)
        return data_samples


def _config():
    metainfo = dict(
        classes=('cat', 'sky'),
        thing_classes=('cat', ),
        stuff_classes=('sky', ),
        palette=[(200, 0, 0), (0, 0, 200)])
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadPanopticMap'), dict(type='PackPanopticInputs')]
    dataset = missing_dataset(metainfo, pipeline)
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(type='ThresholdDetector'),
            test_dataloader=dict(dataset=dataset)))


@pytest.fixture
def image():
    image = np.zeros((4, 6, 3), np.uint8)
    image[1:3, 2:5, 0] = 255
    return image


def test_call__array(image):
    inferencer = PanopticInferencer(_config(), device='cpu')
    result, = inferencer(image)['predictions']
    assert result.image_path is None
    np.testing.assert_array_equal(result.segment_map, image[..., 0] // 255)
    assert result.segments_info == [
        dict(
            id=1,
            label=0,
            class_name='cat',
            is_thing=True,
            score=pytest.approx(0.7),
            area=6,
            bbox=[2, 1, 3, 2])
    ]
    assert not inferencer.model.training


def test_call__score_threshold(image):
    inferencer = PanopticInferencer(_config(), device='cpu')
    assert inferencer(image, pred_score_thr=0.7)['predictions'][0].segments_info
    result, = inferencer([image], pred_score_thr=0.71)['predictions']
    assert result.segments_info == [] and not result.segment_map.any()


def test_call__model_without_scores(image):
    inferencer = PanopticInferencer(_config(), device='cpu', cfg_options={'model.scored': False})
    assert inferencer(image)['predictions'][0].segments_info[0]['score'] is None
    with pytest.raises(ValueError, match='score'):
        inferencer(image, pred_score_thr=0.1)


def test_init__class_names_of_the_checkpoint_come_first(tmp_path, image):
    other = dict(classes=('dog', 'sea'), thing_classes=('dog', ), stuff_classes=('sea', ))
    weights = dict(weight=torch.ones(1))
    torch.save(dict(state_dict=weights, meta=dict(dataset_meta=other)), tmp_path / 'named.pth')
    torch.save(dict(state_dict=weights), tmp_path / 'plain.pth')
    for name, expected in (('named.pth', 'dog'), ('plain.pth', 'cat')):
        inferencer = PanopticInferencer(_config(), str(tmp_path / name), 'cpu')
        assert inferencer.model.weight.item() == 1
        assert inferencer(image)['predictions'][0].segments_info[0]['class_name'] == expected


def test_init__bad_input():
    with pytest.raises(FileNotFoundError, match='none.py'):
        PanopticInferencer('none.py')
    with pytest.raises(FileNotFoundError, match='none.pth'):
        PanopticInferencer(_config(), 'none.pth')


def test_init__weights_of_another_model(tmp_path):
    torch.save(dict(state_dict=dict(bias=torch.ones(1))), tmp_path / 'other.pth')
    with pytest.raises(
            ValueError, match=r'other.pth to have all 1 weights of the model, but 1 are missing .weight.'):
        PanopticInferencer(_config(), str(tmp_path / 'other.pth'), 'cpu')


def test_draw__labels_name_the_segments(image, monkeypatch):
    """The number of a thing is the id of its segment in the result."""
    written, put_text = [], cv2.putText
    monkeypatch.setattr(cv2, 'putText',
                        lambda drawn, text, *rest: written.append(text) or put_text(drawn, text, *rest))
    inferencer = PanopticInferencer(_config(), device='cpu')
    result, = inferencer(image)['predictions']
    overlay = inferencer.draw(image, result)
    assert overlay.shape == enlarge_small(image).shape
    assert sorted(written) == sorted(f'{s["class_name"]} #{s["id"]} {s["score"]:.2f}'
                                     if s['is_thing'] else f'{s["class_name"]} {s["score"]:.2f}'
                                     for s in result.segments_info)


def test_draw_and_save__all_void(tmp_path, image):
    inferencer = PanopticInferencer(_config(), device='cpu')
    result, = inferencer(image * 0)['predictions']
    overlay = inferencer.draw(image, result)
    assert (overlay != enlarge_small(image)).any(-1).mean() > 0.95  # hatched
    files = [*save_segments(result, tmp_path / 'new', 'a'), save_overlay(overlay, tmp_path / 'new', 'a')]
    assert [file.name for file in files] == ['a_panoptic.png', 'a.json', 'a_overlay.png']
    assert all(file.is_file() for file in files)


def test_list_images__files_folders_and_arrays(tmp_path, image):
    for name in ('b.JPG', 'a.png', 'notes.txt'):
        (tmp_path / name).touch()
    (tmp_path / 'empty').mkdir()
    assert list_images(tmp_path) == [tmp_path / 'a.png', tmp_path / 'b.JPG']
    assert list_images([str(tmp_path / 'b.JPG'), image])[0] == tmp_path / 'b.JPG'
    assert list_images(image)[0] is image
    for wrong in ('none', tmp_path / 'empty'):
        with pytest.raises(FileNotFoundError, match=str(wrong)):
            list_images(wrong)


def _strict_config():
    config = _config()
    config.test_dataloader.dataset.pipeline[0].type = 'LoadImageStrict'
    return config


def test_stream__continues_after_bad_files(tmp_path, image):
    for name in ('a', 'c', 'e'):
        cv2.imwrite(str(tmp_path / f'{name}.png'), image)
    (tmp_path / 'b.png').write_bytes(b'not an image')
    (tmp_path / 'd.png').mkdir()
    found = []
    with pytest.raises(FailedImagesError, match='2 failed:') as raised:
        for result in PanopticInferencer(_strict_config(), device='cpu').stream(tmp_path):
            found.append(result.image_path)
    assert found == [str(tmp_path / f'{name}.png') for name in ('a', 'c', 'e')]
    assert [path for path, _ in raised.value.failed] == [str(tmp_path / 'b.png'), str(tmp_path / 'd.png')]
    assert 'BrokenFileError: ' in raised.value.failed[0][1]


@pytest.mark.parametrize('size', [(1, 1), (1, 700), (700, 1)])
def test_call__one_pixel_and_long_images(tmp_path, size):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((*size, 3), 255, np.uint8))
    result, = PanopticInferencer(_strict_config(), device='cpu')(tmp_path)['predictions']
    assert result.segment_map.shape == size and (result.segment_map == 1).all()


def test_call__image_that_the_pipeline_makes_too_small(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((1, 700, 3), np.uint8))
    config = _strict_config()
    config.test_dataloader.dataset.pipeline.insert(1, dict(type='Resize', scale=(64, 64), keep_ratio=True))
    with pytest.raises(FailedImagesError, match=f'{tmp_path}/a.png: error: .*resize'):
        PanopticInferencer(config, device='cpu')(tmp_path)


# ---- arguments and results of mmdet's inferencers


@pytest.fixture
def inferencer():
    return PanopticInferencer(_config(), device='cpu')


def test_call__all_kinds_of_images_give_the_same(tmp_path, image, inferencer):
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    rgb = np.ascontiguousarray(image[..., ::-1])
    rgba = np.dstack([rgb, np.full(image.shape[:2], 255, np.uint8)])
    inputs = [tmp_path, str(tmp_path / 'a.png'), image, rgba, PIL.Image.fromarray(rgb)]
    results = inferencer(inputs)['predictions']
    assert [result.image_path for result in results] == 2 * [str(tmp_path / 'a.png')] + 3 * [None]
    for result in results:
        np.testing.assert_array_equal(result.segment_map, image[..., 0] // 255)
    gray, = inferencer(image[..., 0])['predictions']
    np.testing.assert_array_equal(gray.segment_map, image[..., 0] // 255)


@pytest.mark.parametrize('batch_size', [1, 2, 5])
def test_call__batches_keep_the_order_and_skip_bad_images(batch_size, tmp_path, image, inferencer):
    sizes = []
    test_step = inferencer.model.test_step
    inferencer.model.test_step = lambda data: sizes.append(len(data['inputs'])) or test_step(data)
    for number in range(5):
        cv2.imwrite(str(tmp_path / f'{number}.png'), image if number % 2 else image * 0)
    for name in ('0b.png', '4b.png'):
        (tmp_path / name).write_bytes(b'no image')
    with pytest.raises(FailedImagesError, match='2 failed') as raised:
        inferencer(tmp_path, batch_size=batch_size)
    found = raised.value.results['predictions']
    assert [(result.image_path[-5:], len(result.segments_info))
            for result in found] == [(f'{number}.png', number % 2) for number in range(5)]
    assert sizes == {1: [1] * 5, 2: [2, 2, 1], 5: [5]}[batch_size]
    with pytest.raises(ValueError, match='batch size of at least 1, but got 0'):
        inferencer(image, batch_size=0)


def test_call__batch_of_different_sizes():
    config = _config()
    config.model = detector_config()
    config.model['test_cfg'].update(instance_on=False, semantic_on=False)
    names = [f'class {label}' for label in range(5)]
    dataset = config.test_dataloader.dataset
    dataset.metainfo = dict(classes=names, thing_classes=names[:3], stuff_classes=names[3:])
    dataset.pipeline.insert(1, dict(type='Resize', scale=(65, 65), keep_ratio=True))
    inferencer = PanopticInferencer(config, device='cpu')
    images = [
        np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8) for size in ((40, 90), (90, 40))
    ]
    single = [inferencer(image)['predictions'][0] for image in images]
    for one, other in zip(single, inferencer(images, batch_size=2)['predictions']):
        np.testing.assert_array_equal(one.segment_map, other.segment_map)
        assert one.segments_info and [s['score'] for s in one.segments_info] == pytest.approx(
            [s['score'] for s in other.segments_info], rel=1e-4)


def test_call__files_and_overlays(tmp_path, image, inferencer):
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    out, pred = tmp_path / 'out', tmp_path / 'pred'

    def names(folder):
        return sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []

    overlay, = inferencer(tmp_path / 'a.png', return_vis=True, out_dir=out)['visualization']
    assert names(out) == ['a.json', 'a_overlay.png', 'a_panoptic.png']
    np.testing.assert_array_equal(cv2.imread(str(out / 'a_overlay.png'))[..., ::-1], overlay)
    drawn = inferencer.draw(np.ascontiguousarray(image[..., ::-1]), inferencer(image)['predictions'][0])
    np.testing.assert_array_equal(overlay, drawn)

    # Arrays have numbers, which go on from call to call.
    inferencer([image, image], out_dir=out, pred_out_dir=pred)
    inferencer(image, out_dir=out, no_save_pred=True)
    inferencer(image, pred_out_dir=pred)
    assert names(out)[:3] == [f'0000000{number}_overlay.png' for number in range(3)] and len(names(out)) == 6
    assert names(pred) == [f'0000000{n}{end}' for n in (0, 1, 3) for end in ('.json', '_panoptic.png')]

    inferencer(image, out_dir=tmp_path / 'none', no_save_pred=True, no_save_vis=True)
    assert not (tmp_path / 'none').exists()
    assert inferencer(image)['visualization'] == []


def test_call__results_with_the_same_name(tmp_path, image, inferencer):
    for name in ('a.png', 'a.bmp'):
        cv2.imwrite(str(tmp_path / name), image)
    with pytest.raises(ValueError, match=r"results of \['a'\] would overwrite each other"):
        inferencer(tmp_path, out_dir=tmp_path / 'out')
    assert len(inferencer(tmp_path)['predictions']) == 2


def test_call__window_and_progress(tmp_path, image, inferencer, monkeypatch, capsys):
    cv2.imwrite(str(tmp_path / 'cat.png'), image)
    shown = []
    monkeypatch.setattr('mmengine.visualization.Visualizer.show',
                        lambda self, drawn, win_name, wait_time: shown.append((win_name, wait_time)))
    inferencer(tmp_path / 'cat.png', show=True, wait_time=2.)
    assert shown == [('cat', 2.)] and '1/1' not in capsys.readouterr().out
    inferencer([image, image])
    assert '2/2' in capsys.readouterr().out
    inferencer.show_progress = False
    inferencer([image, image])
    assert capsys.readouterr().out == ''


def test_keep_segments__colors_stay(image, inferencer):
    panoptic = np.zeros((4, 6), np.int32)
    panoptic[:, 2:4], panoptic[:, 4:] = 1, 7
    segments = [
        dict(id=number, label=0, class_name='cat', is_thing=True, score=1., area=8, bbox=[0, 0, 1, 4])
        for number in (1, 7)
    ]
    both = PanopticResult(None, panoptic, segments)
    one = keep_segments(both, {7})
    assert one.segments_info == segments[1:]
    np.testing.assert_array_equal(one.segment_map, np.where(panoptic == 7, 7, 0))
    # The color of a segment is mixed with black, or it is a border.
    drawn = [inferencer.draw(image * 0, result) for result in (both, one)]
    assert drawn[0].shape == drawn[1].shape
    np.testing.assert_array_equal(drawn[0][-1, -1], drawn[1][-1, -1])
    assert (drawn[0][0, 2] != drawn[0][-1, -1]).any()
    assert keep_segments(both, ()).segments_info == [] and not keep_segments(both, ()).segment_map.any()


def test_init__by_name(tmp_path):
    inferencer = PanopticInferencer('remax-mini', device='cpu')
    assert type(inferencer.model).__name__ == 'MaskTransformer' and len(inferencer.classes) > 1
    with pytest.raises(FileNotFoundError, match='remax-x, or a model of this name, .* did you mean remax-'):
        PanopticInferencer('remax-x')
