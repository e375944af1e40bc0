"""Normalization and padding compared with a loop over pixels, in training and at test."""
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

from remax_mm.models.data_preprocessors.panoptic_data_preprocessor import (PanopticDataPreprocessor,
                                                                           next_aligned_size)


def _batch(*sizes, ground_truth=True, map_size=None):
    inputs, samples = [], []
    for number, (height, width) in enumerate(sizes):
        inputs.append(torch.randint(0, 256, (3, height, width), dtype=torch.uint8))
        sample = DetDataSample(metainfo=dict(img_path=f'{number}.jpg', img_shape=(height, width)))
        if ground_truth:
            segment_map = torch.randint(0, 5, (1, *(map_size or (height, width))), dtype=torch.uint8)
            sample.gt_panoptic_seg = PixelData(segment_map=segment_map)
            is_thing = torch.ones(4, dtype=torch.bool)
            sample.gt_segments = InstanceData(labels=torch.arange(4), is_thing=is_thing)
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def _reference_input(image, height, width):
    """B, G, R bytes to R, G, B in [-1, 1], padded with 0."""
    padded = np.zeros((3, height, width), np.float32)
    for channel in range(3):
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                padded[channel, y, x] = (float(image[2 - channel, y, x]) - 127.5) / 127.5
    return padded


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('pad_size, expected', [((33, 65), (33, 65)), (65, (65, 65)), (None, (33, 33))])
def test_preprocessor__equals_loop(training, pad_size, expected):
    data = _batch((20, 30), (31, 7))
    images = [image.clone() for image in data['inputs']]
    out = PanopticDataPreprocessor(pad_size)(data, training)
    assert out['inputs'].shape == (2, 3, *expected)
    for image, got, sample in zip(images, out['inputs'], out['data_samples']):
        np.testing.assert_allclose(got.numpy(), _reference_input(image, *expected), atol=1e-6, rtol=0)
        assert sample.batch_input_shape == sample.pad_shape == expected
        assert sample.img_shape == tuple(image.shape[1:])  # the fusion head uses it to remove the padding


def test_preprocessor__segment_maps_are_padded_with_void_in_training():
    data = _batch((20, 30), (31, 7))
    maps = [sample.gt_panoptic_seg.segment_map.clone() for sample in data['data_samples']]
    for before, sample in zip(maps, PanopticDataPreprocessor((33, 65))(data, True)['data_samples']):
        after = sample.gt_panoptic_seg.segment_map
        height, width = before.shape[1:]
        assert after.shape == (1, 33, 65) and after.dtype == torch.uint8
        assert torch.equal(after[:, :height, :width], before)
        assert after.sum() == before.sum()  # the padding is 0


def test_preprocessor__notes_the_largest_values_before_the_copy_to_the_device():
    data = _batch((20, 30))
    segment_map = data['data_samples'][0].gt_panoptic_seg.segment_map
    segment_map[segment_map == 4] = 0
    sample, = PanopticDataPreprocessor()(data, True)['data_samples']
    assert sample.gt_largest == (3, 3)


def test_preprocessor__ground_truth_keeps_its_size_at_test():
    data = _batch((20, 30), map_size=(480, 640))
    before = data['data_samples'][0].gt_panoptic_seg.segment_map.clone()
    after = PanopticDataPreprocessor(33)(data, False)['data_samples'][0].gt_panoptic_seg.segment_map
    assert torch.equal(after, before)


def test_preprocessor__stacked_inputs_and_no_samples():
    images = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8)
    out = PanopticDataPreprocessor(33)(dict(inputs=images), False)
    assert out['data_samples'] is None
    expected = _reference_input(images[1], 33, 33)
    np.testing.assert_allclose(out['inputs'][1].numpy(), expected, atol=1e-6, rtol=0)


def test_preprocessor__samples_without_ground_truth():
    out = PanopticDataPreprocessor(33)(_batch((20, 30), ground_truth=False), True)
    assert 'gt_panoptic_seg' not in out['data_samples'][0]


def test_preprocessor__larger_padding_does_not_change_the_image():
    small, large = (PanopticDataPreprocessor(size) for size in (33, 97))
    data = _batch((20, 30))
    with_small_padding = small(dict(inputs=list(data['inputs'])), False)['inputs']
    with_large_padding = large(dict(inputs=list(data['inputs'])), False)['inputs']
    assert torch.equal(with_large_padding[..., :33, :33], with_small_padding)
    assert not with_large_padding[..., 33:, :].any() and not with_large_padding[..., 33:].any()


def test_preprocessor__built_from_the_registry():
    model = MODELS.build(dict(type='PanopticDataPreprocessor', pad_size=(641, 641)))
    assert model.pad_size == (641, 641)
    with pytest.raises(TypeError, match='pad_value'):
        MODELS.build(dict(type='PanopticDataPreprocessor', pad_value=1))


@pytest.mark.parametrize('size, expected', [(1, 33), (33, 33), (34, 65), (640, 641), (641, 641), (642, 673)])
def test_next_aligned_size__smallest_that_is_not_less(size, expected):
    assert next_aligned_size(size) == expected


@pytest.mark.parametrize('pad_size', [640, (641, 640), 1, (641, ), (641, 641, 641)])
def test_preprocessor__pad_size_that_is_not_aligned(pad_size):
    with pytest.raises(ValueError, match=r'32k \+ 1'):
        PanopticDataPreprocessor(pad_size)


def test_preprocessor__image_that_is_too_large():
    with pytest.raises(ValueError, match=r'at most \(33, 33\).*1.jpg is \(20, 34\)'):
        PanopticDataPreprocessor(33)(_batch((20, 30), (20, 34)), False)
    with pytest.raises(ValueError, match=r'an image is \(34, 20\)'):
        PanopticDataPreprocessor(33)(dict(inputs=_batch((34, 20))['inputs']), False)


def test_preprocessor__copies_do_not_block(monkeypatch):
    """Images and ground truth go to the device by copies that do not wait; pinned memory makes them run."""
    copies, to = [], torch.Tensor.to

    def record(tensor, *args, **kwargs):
        if args and isinstance(args[0], torch.device):
            copies.append((tuple(tensor.shape), kwargs.get('non_blocking')))
        return to(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, 'to', record)
    PanopticDataPreprocessor()(_batch((20, 30)), training=True)
    assert {shape for shape, _ in copies} == {(3, 20, 30), (1, 20, 30), (4, )}
    assert all(non_blocking is True for _, non_blocking in copies)
