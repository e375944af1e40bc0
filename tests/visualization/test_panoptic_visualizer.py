import itertools
from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
import torch
from mmdet.registry import HOOKS, VISUALIZERS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

from remax_mm.panoptic_format import PanopticAnnotation, write_segment_ids
from remax_mm.visualization import draw_panoptic, enlarge_small
from remax_mm.visualization.panoptic_visualizer import fit_to_input

META = dict(classes=('cat', 'dog', 'sky'), palette=[(200, 0, 0), (0, 200, 0), (0, 0, 200)])
VOID = 3
NUMBERS = itertools.count()
IMAGE = np.random.default_rng(0).integers(0, 256, (24, 30, 3)).astype(np.uint8)


def _visualizer():
    visualizer = VISUALIZERS.build(dict(type='PanopticVisualizer', name=f'test{next(NUMBERS)}', alpha=0.5))
    visualizer.dataset_meta = META
    return visualizer


def _sample(size=(24, 30), with_gt=True, value=1001):
    sample = DetDataSample(metainfo=dict(img_path='a.jpg', ori_shape=(24, 30)))
    sample.pred_panoptic_seg = PixelData(sem_seg=torch.full((1, 24, 30), value, dtype=torch.int32))
    if with_gt:
        segment_map = torch.zeros(1, *size, dtype=torch.uint8)
        segment_map[:, :, 10:] = 2
        sample.gt_panoptic_seg = PixelData(segment_map=segment_map)
        sample.gt_segments = InstanceData(labels=torch.tensor([0, 2]), is_thing=torch.tensor([True, False]))
    return sample


def _panels(visualizer, count):
    """The panels, 13 times as large as the image."""
    drawn = visualizer.get_image()
    assert drawn.shape[1] == 390 * count + 4 * (count - 1)
    return [drawn[-312:, start:start + 390] for start in range(0, drawn.shape[1], 394)]


def _draw(panoptic_map, scores=None):
    """The panel that is expected for a map."""
    enlarged = enlarge_small(panoptic_map, is_map=True)
    return draw_panoptic(enlarge_small(IMAGE), enlarged, META['classes'], META['palette'], 0.5, scores)


def test_add_datasample__input_ground_truth_and_prediction(tmp_path):
    visualizer = _visualizer()
    visualizer.add_datasample('a', IMAGE, _sample(), out_file=str(tmp_path / 'sub' / 'a.png'))
    image, annotated, predicted = _panels(visualizer, 3)
    np.testing.assert_array_equal(image, enlarge_small(IMAGE))
    gt_map = np.full((24, 30), VOID)
    gt_map[:, 10:] = 2
    np.testing.assert_array_equal(annotated, _draw(gt_map))
    np.testing.assert_array_equal(predicted, _draw(np.full((24, 30), 1001)))
    np.testing.assert_array_equal(
        mmcv.imread(str(tmp_path / 'sub' / 'a.png'), channel_order='rgb'), visualizer.get_image())


def test_add_datasample__available_panels():
    visualizer = _visualizer()
    visualizer.add_datasample('a', IMAGE, _sample(), draw_gt=False)
    _panels(visualizer, 2)
    visualizer.add_datasample('a', IMAGE, _sample(), draw_pred=False)
    _panels(visualizer, 2)
    visualizer.add_datasample('a', IMAGE, _sample(with_gt=False))
    _panels(visualizer, 2)
    visualizer.add_datasample('a', IMAGE)
    assert visualizer.get_image().shape == IMAGE.shape


@pytest.mark.parametrize('value', [VOID, 777, -1])
def test_add_datasample__all_void(value):
    visualizer = _visualizer()
    visualizer.add_datasample('a', IMAGE, _sample(value=value))
    np.testing.assert_array_equal(_panels(visualizer, 3)[2], _draw(np.full((24, 30), VOID)))


def test_add_datasample__scores_of_the_prediction():
    sample, visualizer = _sample(with_gt=False), _visualizer()
    sample.pred_panoptic_seg.set_metainfo(dict(segments_info=[dict(id=1001, label=1, score=0.25)]))
    visualizer.add_datasample('a', IMAGE, sample)
    panel, full = _panels(visualizer, 2)[1], np.full((24, 30), 1001)
    np.testing.assert_array_equal(panel, _draw(full, {1001: 0.25}))
    assert (panel != _draw(full)).any()


def test_add_datasample__annotation_from_its_png_if_the_map_was_resized(tmp_path):
    path = str(tmp_path / 'gt.png')
    write_segment_ids(path, np.full((24, 30), 90))
    sample = _sample(size=(12, 15))
    visualizer = _visualizer()
    visualizer.add_datasample('a', IMAGE, sample)
    _panels(visualizer, 2)
    sample.set_metainfo(
        dict(seg_map_path=path, segments_info=[dict(id=90, category=2, is_thing=False, iscrowd=False)]))
    visualizer.add_datasample('a', IMAGE, sample)
    np.testing.assert_array_equal(_panels(visualizer, 3)[1], _draw(np.full((24, 30), 2)))


def test_add_datasample__annotation_of_a_test_pipeline():
    ids = torch.zeros(24, 30, dtype=torch.int32)
    ids[:, 5:15], ids[:, 15:] = 90, 70000
    segments = [
        dict(id=70000, category=1, is_thing=True, iscrowd=True),
        dict(id=90, category=1, is_thing=True, iscrowd=False)
    ]
    sample = _sample(with_gt=False)
    sample.gt_annotation = PanopticAnnotation(ids, segments)
    visualizer = _visualizer()
    visualizer.add_datasample('a', IMAGE, sample)
    expected = np.full((24, 30), VOID)
    expected[:, 5:15] = 1001
    np.testing.assert_array_equal(_panels(visualizer, 3)[1], _draw(expected))
    sample.gt_annotation = PanopticAnnotation(ids[:12, :15], segments)  # another size than that of the image
    visualizer.add_datasample('a', IMAGE, sample)
    _panels(visualizer, 2)


@pytest.mark.parametrize(
    'original, scale, padded',
    [
        ((12, 15), 2, (24, 30)),  # enlarged
        ((48, 60), 0.5, (24, 30)),  # made smaller
        ((40, 60), 0.5, (24, 30)),  # and padded below
        ((24, 40), 0.75, (24, 30)),  # one row is 18 high
    ])
def test_fit_to_input__resized_and_padded(original, scale, padded):
    ids = np.zeros(original, np.int32)
    ids[:, original[1] // 2:] = 7
    fitted = fit_to_input(ids, dict(scale_factor=(scale, scale)), padded)
    expected = np.zeros(padded, np.int32)
    expected[:int(original[0] * scale), int(original[1] // 2 * scale):int(original[1] * scale)] = 7
    np.testing.assert_array_equal(fitted, expected)


def test_fit_to_input__size_of_the_photo_and_crops():
    ids = np.ones((10, 10), np.int32)
    assert fit_to_input(ids, dict(scale_factor=(2., 2.), flip=True), (10, 10)) is ids
    assert fit_to_input(ids, dict(scale_factor=(2., 2.)), (20, 19)) is None
    assert fit_to_input(ids, dict(scale_factor=(2., 2.), flip=True), (20, 20)) is None
    assert fit_to_input(ids, dict(), (20, 20)) is None


def test_add_datasample__training_sample_of_another_size():
    """Without a map for this image the input is drawn alone; mmdet's drawing would need `sem_seg`."""
    sample = _sample(size=(12, 15))
    del sample.pred_panoptic_seg
    visualizer = _visualizer()
    visualizer.add_datasample('a', IMAGE, sample)
    _panels(visualizer, 1)


def test_add_datasample__boxes_are_drawn_by_mmdet():
    sample = DetDataSample()
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([[2., 2., 20., 20.]]), labels=torch.tensor([1]), scores=torch.tensor([0.9]))
    visualizer = _visualizer()
    visualizer.add_datasample('a', IMAGE, sample)
    assert visualizer.get_image().shape == (24, 60, 3)
    assert (visualizer.get_image()[:, 30:] != IMAGE).any()


def test_add_datasample__without_class_names():
    visualizer = _visualizer()
    visualizer.dataset_meta = {}
    with pytest.raises(ValueError, match='dataset_meta'):
        visualizer.add_datasample('a', IMAGE, _sample())


def test_visualization_hook__writes_test_pictures(tmp_path):
    _visualizer()
    mmcv.imwrite(IMAGE[..., ::-1], str(tmp_path / 'photo.png'))
    sample = _sample()
    sample.set_metainfo(dict(img_path=str(tmp_path / 'photo.png')))
    hook = HOOKS.build(dict(type='DetVisualizationHook', draw=True, test_out_dir='shown'))
    runner = SimpleNamespace(work_dir=str(tmp_path), timestamp='now', iter=0)
    hook.after_val_iter(runner, 0, None, [sample])
    hook.after_test_iter(runner, 0, None, [sample])
    hook.after_test_iter(runner, 1, None, [sample])
    assert mmcv.imread(str(tmp_path / 'now' / 'shown' / 'photo.png')).shape[1] == 3 * 390 + 2 * 4
