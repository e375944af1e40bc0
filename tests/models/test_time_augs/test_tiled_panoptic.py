import copy
import weakref

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import DefaultScope
from torch.utils._python_dispatch import TorchDispatchMode

from tests.color_model import (CAT, CAT_2, DOG, GRASS, SKY, as_input, assert_same_segments, away_from_borders,
                               color_detector, labels_of, paint, truth)
from tests.random_statistics import randomize_norms
from tests.tiny_model import NUM_SLOTS, detector_config

S = slice


@pytest.fixture(autouse=True)
def _mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def _tiled(detector, tile_size=65, overlap=16, **options):
    config = dict(type='TiledPanopticModel', module=detector, tile_size=tile_size, overlap=overlap, **options)
    return MODELS.build(config).eval()


def _batch(*images):
    samples = [
        DetDataSample(
            metainfo=dict(img_path=f'{i}.png', img_shape=image.shape[-2:], ori_shape=image.shape[-2:]))
        for i, image in enumerate(images)
    ]
    return dict(inputs=list(images), data_samples=samples)


@torch.no_grad()
def _run(model, batch):
    return model.test_step(copy.deepcopy(batch))


def _panoptic_only(**options):
    config = detector_config(**options)
    config['test_cfg'].update(instance_on=False, semantic_on=False)
    return randomize_norms(MODELS.build(config)).eval()


def test_tiled_panoptic__one_tile_equals_the_plain_prediction():
    """Exactly, with all kinds of results."""
    detector = randomize_norms(MODELS.build(detector_config())).eval()
    batch = _batch(torch.randint(0, 256, (3, 50, 65), dtype=torch.uint8))
    plain, = _run(detector, batch)
    result, = _run(_tiled(detector), batch)
    assert torch.equal(result.pred_panoptic_seg.sem_seg, plain.pred_panoptic_seg.sem_seg)
    assert result.pred_panoptic_seg.segments_info == plain.pred_panoptic_seg.segments_info
    assert torch.equal(result.pred_instances.masks, plain.pred_instances.masks)


@pytest.mark.parametrize('size', [(65, 150), (150, 40), (140, 200)])
@pytest.mark.parametrize('stride', [1, 4])
def test_tiled_panoptic__segments_across_tiles(size, stride):
    """Parts of a thing and of stuff are joined, things that touch are not; also with masks at stride 4."""
    image = paint(size, (SKY, S(0, size[0] // 2), S(None)), (CAT, S(8, 36), S(4, size[1] - 8)),
                  (CAT_2, S(36, size[0] - 4), S(4, 32)), (DOG, S(40, 60), S(size[1] - 40, None)))
    model = _tiled(color_detector(stride=stride))
    result, = _run(model, _batch(as_input(image)))
    panoptic = result.pred_panoptic_seg
    assert panoptic.sem_seg.shape == (1, *size) and panoptic.sem_seg.dtype == torch.int32
    inside = ... if stride == 1 else away_from_borders(image, stride)
    assert_same_segments(panoptic.sem_seg[0].numpy(), truth(image), inside)
    assert labels_of(panoptic.segments_info) == sorted([SKY.label, CAT.label, CAT_2.label, DOG.label])
    values = set(panoptic.sem_seg.unique().tolist()) - {model.module.num_classes}
    assert values == {info['id'] for info in panoptic.segments_info}
    assert all(0 <= info['score'] <= 1 and info['is_thing'] == (info['label'] < 2)
               for info in panoptic.segments_info)


def test_tiled_panoptic__equals_the_predictions_of_its_tiles():
    """The own part of each tile is the detector's prediction for this tile as an image."""
    detector = _panoptic_only()
    image = torch.randint(0, 256, (3, 65, 114), dtype=torch.uint8)
    result, = _run(_tiled(detector), _batch(image))
    left, right = (
        _run(detector, _batch(part))[0].pred_panoptic_seg.sem_seg[0].numpy()
        for part in (image[..., :65], image[..., 49:]))
    stitched = result.pred_panoptic_seg.sem_seg[0].numpy()
    assert_same_segments(stitched[:, :57], left[:, :57])
    assert_same_segments(stitched[:, 57:], right[:, 8:])


def test_tiled_panoptic__batch_of_different_images():
    images = [paint((70, 100), (GRASS, S(None), S(None)), (CAT, S(9, 60), S(20, 90))), paint((30, 30))]
    images[1][5:20, 5:20] = DOG.rgb[::-1]
    batch = _batch(*map(as_input, images))
    batch['data_samples'][0].gt = 'kept'
    results = _run(_tiled(color_detector()), batch)
    for result, image, name in zip(results, images, ('0.png', '1.png')):
        assert_same_segments(result.pred_panoptic_seg.sem_seg[0].numpy(), truth(image))
        assert result.img_path == name
    assert results[0].gt == 'kept'


def test_tiled_panoptic__wrong_input():
    with pytest.raises(ValueError, match='overlap from 1 to 32'):
        _tiled(color_detector(), overlap=40)
    with pytest.raises(ValueError, match='height and width, but got .*1, 2, 3'):
        _tiled(color_detector(), tile_size=[1, 2, 3])
    with pytest.raises(ValueError, match='but got 0.4'):
        _tiled(color_detector(), iou_threshold=0.4)
    large = torch.zeros(3, 80, 80, dtype=torch.uint8)
    with pytest.raises(ValueError, match='pred_instances.*instance_on=False'):
        _run(_tiled(color_detector(instance_on=True)), _batch(large))
    resized = _batch(large)
    resized['data_samples'][0].set_metainfo(dict(ori_shape=(40, 40)))
    with pytest.raises(ValueError, match=r'0.png of \(40, 40\).*\(80, 80\)'):
        _run(_tiled(color_detector()), resized)
    with pytest.raises(ValueError, match='at most .65, 65.'):
        _run(_tiled(color_detector(), tile_size=97), _batch(large))


class LargestTensor(TorchDispatchMode):
    """Elements of the largest floating-point tensor, and of the largest one with N rows, as masks have."""

    def __init__(self):
        super().__init__()
        self.floating = self.masks = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.floating = max(self.floating, tensor.numel())
                if tensor.dim() >= 3 and tensor.shape[-3] == NUM_SLOTS:
                    self.masks = max(self.masks, tensor.numel())
        return result


def _largest(model, size):
    batch = _batch(torch.randint(0, 256, (3, *size), dtype=torch.uint8))
    with LargestTensor() as largest:
        _run(model, batch)
    return largest


def test_tiled_panoptic__memory_does_not_depend_on_the_image_size():
    detector = _panoptic_only()
    one_tile = _largest(detector, (65, 65))
    assert one_tile.masks == NUM_SLOTS * 65 * 65
    tiled = _tiled(detector)
    for size in ((66, 65), (150, 100), (120, 200)):
        largest = _largest(tiled, size)
        assert (largest.masks, largest.floating) == (one_tile.masks, one_tile.floating)

    # Without tiles, both grow with the image.
    detector.data_preprocessor.pad_size = None
    assert _largest(detector, (193, 321)).masks == NUM_SLOTS * 193 * 321


def test_tiled_panoptic__at_most_one_tile_in_memory():
    """The logits of a tile are freed before the next tile is processed."""
    detector = _panoptic_only()
    references, counts = [], []
    predict = detector.panoptic_fusion_head.predict

    def remember(class_logits, mask_logits, *args, **kwargs):
        counts.append(sum(reference() is not None for reference in references))
        references.append(weakref.ref(mask_logits))
        return predict(class_logits, mask_logits, *args, **kwargs)

    detector.panoptic_fusion_head.predict = remember
    _run(_tiled(detector), _batch(torch.zeros(3, 150, 150, dtype=torch.uint8)))
    assert counts == [0] * 9


def test_tiled_panoptic__logits_that_are_not_finite():
    detector = _panoptic_only()
    predict = detector.panoptic_head.predict
    detector.panoptic_head.predict = lambda *args: [part * float('nan') for part in predict(*args)]
    with pytest.raises(FloatingPointError, match='0.png'):
        _run(_tiled(detector), _batch(torch.zeros(3, 150, 150, dtype=torch.uint8)))
