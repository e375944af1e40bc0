import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import PixelData

from remax_mm.apis import FailedImagesError, PanopticInferencer, list_images, save_result
from remax_mm.visualization import enlarge_small


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
            model=dict(type='ThresholdDetector'),
            test_dataloader=dict(dataset=dataset)))


@pytest.fixture
def image():
    image = np.zeros((4, 6, 3), np.uint8)
    image[1:3, 2:5, 0] = 255
    return image


def test_call__array(image):
    inferencer = PanopticInferencer(_config(), device='cpu')
    result, = inferencer(image)
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
    assert inferencer(image, score_thr=0.7)[0].segments_info
    result, = inferencer([image], score_thr=0.71)
    assert result.segments_info == [] and not result.segment_map.any()


def test_call__model_without_scores(image):
    inferencer = PanopticInferencer(_config(), device='cpu', cfg_options={'model.scored': False})
    assert inferencer(image)[0].segments_info[0]['score'] is None
    with pytest.raises(ValueError, match='score'):
        inferencer(image, score_thr=0.1)


def test_init__class_names_of_the_checkpoint_come_first(tmp_path, image):
    other = dict(classes=('dog', 'sea'), thing_classes=('dog', ), stuff_classes=('sea', ))
    weights = dict(weight=torch.ones(1))
    torch.save(dict(state_dict=weights, meta=dict(dataset_meta=other)), tmp_path / 'named.pth')
    torch.save(dict(state_dict=weights), tmp_path / 'plain.pth')
    for name, expected in (('named.pth', 'dog'), ('plain.pth', 'cat')):
        inferencer = PanopticInferencer(_config(), str(tmp_path / name), 'cpu')
        assert inferencer.model.weight.item() == 1
        assert inferencer(image)[0].segments_info[0]['class_name'] == expected


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
    result, = inferencer(image)
    overlay = inferencer.draw(image, result)
    assert overlay.shape == enlarge_small(image).shape
    assert sorted(written) == sorted(f'{s["class_name"]} #{s["id"]} {s["score"]:.2f}'
                                     if s['is_thing'] else f'{s["class_name"]} {s["score"]:.2f}'
                                     for s in result.segments_info)


def test_draw_and_save__all_void(tmp_path, image):
    inferencer = PanopticInferencer(_config(), device='cpu')
    result, = inferencer(image * 0)
    overlay = inferencer.draw(image, result)
    assert (overlay != enlarge_small(image)).any(-1).mean() > 0.95  # hatched
    files = save_result(result, overlay, tmp_path / 'new', 'a')
    assert [file.name for file in files] == ['a_panoptic.png', 'a_overlay.png', 'a.json']
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
    result, = PanopticInferencer(_strict_config(), device='cpu')(tmp_path)
    assert result.segment_map.shape == size and (result.segment_map == 1).all()


def test_call__image_that_the_pipeline_makes_too_small(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((1, 700, 3), np.uint8))
    config = _strict_config()
    config.test_dataloader.dataset.pipeline.insert(1, dict(type='Resize', scale=(64, 64), keep_ratio=True))
    with pytest.raises(FailedImagesError, match=f'{tmp_path}/a.png: error: .*resize'):
        PanopticInferencer(config, device='cpu')(tmp_path)
