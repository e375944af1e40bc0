"""Exported models in mmengine's runner and in PanopticInferencer, with a model made by hand."""
import mmcv
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config

pytest.importorskip('onnx', reason='needs the extra onnx')
pytest.importorskip('onnxruntime', reason='needs the extra onnx')
from remax_mm.apis import PanopticInferencer  # noqa: E402
from remax_mm.apis.onnx_config import is_deployed, use_onnx  # noqa: E402
from remax_mm.apis.web_photo import Limits, PhotoSegmenter  # noqa: E402
from remax_mm.deploy.onnx_detector import OnnxDetector  # noqa: E402
from remax_mm.deploy.remax_runtime import ModelFileError  # noqa: E402
from remax_mm.visualization import enlarge_small  # noqa: E402
from tests.deploy.color_onnx import CLASSES, color_image, write_color_model  # noqa: E402


def test_detector__panoptic_map(tmp_path):
    detector = OnnxDetector(str(write_color_model(tmp_path / 'model.onnx')))
    image = torch.from_numpy(color_image(20, 30)[..., ::-1].transpose(2, 0, 1).copy())
    sample = DetDataSample(metainfo=dict(img_shape=(20, 30), ori_shape=(40, 60)))
    result, = detector.test_step(dict(inputs=[image], data_samples=[sample]))
    panoptic_map = result.pred_panoptic_seg.sem_seg[0].numpy()
    assert panoptic_map.shape == (40, 60)
    # label + 1000 * instance: sky 1 and grass 2 are stuff, the cat is class 0
    assert panoptic_map[0, 0] == 1 and panoptic_map[39, 0] == 2
    cat = panoptic_map[15, 20]
    assert cat % 1000 == 0 and cat >= 1000
    scores = {info['id']: info['score'] for info in result.pred_panoptic_seg.segments_info}
    assert scores[cat] == pytest.approx(0.9) and scores[1] == pytest.approx(0.8)


def test_detector__only_predicts(tmp_path):
    detector = OnnxDetector(str(write_color_model(tmp_path / 'model.onnx')))
    with pytest.raises(NotImplementedError, match='mode `predict`'):
        detector([], [], mode='loss')


def test_detector__logits_without_a_fusion_head(tmp_path):
    path = write_color_model(tmp_path / 'logits.onnx', outputs='logits')
    with pytest.raises(ModelFileError, match='fusion head of remax_mm for the logits of .*logits.onnx'):
        OnnxDetector(str(path))


def test_inferencer__runs_a_deployed_folder(tmp_path):
    write_color_model(tmp_path / 'model.onnx')
    inferencer = PanopticInferencer(str(tmp_path), device='cpu')
    assert list(inferencer.classes) == CLASSES
    image = color_image()
    result = next(iter(inferencer.stream(np.ascontiguousarray(image[..., ::-1]))))
    assert [segment['class_name'] for segment in result.segments_info] == ['sky', 'grass', 'cat']
    np.testing.assert_array_equal(result.segment_map == 3, image[..., 0] > 0)
    assert inferencer.draw(image, result).shape == enlarge_small(image).shape


def test_web_page__segments_with_a_deployed_folder(tmp_path):
    write_color_model(tmp_path / 'model.onnx')
    image = color_image()
    mmcv.imwrite(np.ascontiguousarray(image[..., ::-1]), str(tmp_path / 'photo.png'))
    inferencer = PanopticInferencer(str(tmp_path), device='cpu')
    photo, result = PhotoSegmenter(inferencer, Limits())(str(tmp_path / 'photo.png'))
    np.testing.assert_array_equal(photo, image)
    assert [segment['class_name'] for segment in result.segments_info] == ['sky', 'grass', 'cat']


def test_is_deployed():
    assert is_deployed('model.onnx') and not is_deployed('config.py') and not is_deployed(Config())


def test_inferencer__logits(tmp_path):
    write_color_model(tmp_path / 'model.onnx', outputs='logits')
    with pytest.raises(ModelFileError, match='without --logits'):
        PanopticInferencer(str(tmp_path), device='cpu')


def _config(scale=(65, 65), num_stuff=2):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=scale, keep_ratio=True)]
    head = dict(type='KMaXHead', num_things_classes=1, num_stuff_classes=num_stuff)
    return Config(
        dict(
            model=dict(panoptic_head=head, panoptic_fusion_head=dict(type='KMaXFusionHead')),
            custom_hooks=[dict(type='CheckWeightsHook')],
            test_dataloader=dict(dataset=dict(pipeline=pipeline))))


def test_use_onnx__replaces_the_model(tmp_path):
    path = write_color_model(tmp_path / 'model.onnx')
    config = _config()
    changed = use_onnx(config, path)
    assert changed.model.type == 'OnnxDetector' and changed.model.file == str(
        path) and not changed.custom_hooks
    assert config.model.panoptic_head.type == 'KMaXHead'


def test_use_onnx__other_config(tmp_path):
    path = write_color_model(tmp_path / 'model.onnx')
    with pytest.raises(ModelFileError, match=r'resizes images to \[65, 65\].*model.onnx, but got.*641'):
        use_onnx(_config(scale=(641, 641)), path)
    with pytest.raises(ModelFileError, match='a model of 9 classes.*model.onnx has 3'):
        use_onnx(_config(num_stuff=8), path)
