"""The tensors and data samples that a pipeline returns."""
import pickle

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch.utils.data._utils.pin_memory import pin_memory

from remax_mm.datasets.transforms.pack_panoptic_inputs import PackPanopticInputs


def _results(**kwargs):
    rng = np.random.default_rng(0)
    return {
        **dict(
            img=rng.integers(0, 256, (4, 6, 3)).astype(np.uint8),
            img_id=3,
            img_path='a.jpg',
            ori_shape=(8, 12),
            img_shape=(4, 6),
            scale_factor=(0.5, 0.5),
            flip=False,
            sample_idx=1,
            seg_map_path='a.png',
            segments_info=[dict(id=9, category=1, is_thing=True, iscrowd=False)],
            gt_seg_map=rng.integers(0, 3, (4, 6)).astype(np.uint8),
            gt_segment_labels=np.array([2, 0]),
            gt_segment_is_thing=np.array([False, True])),
        **kwargs
    }


def test_pack__inputs_and_ground_truth():
    results = _results()
    packed = PackPanopticInputs()(results)
    assert packed['inputs'].dtype == torch.uint8 and packed['inputs'].is_contiguous()
    assert np.array_equal(packed['inputs'].permute(1, 2, 0).numpy(), results['img'])
    sample = packed['data_samples']
    assert np.array_equal(sample.gt_panoptic_seg.segment_map[0].numpy(), results['gt_seg_map'])
    assert sample.gt_panoptic_seg.segment_map.dtype == torch.uint8
    assert sample.gt_segments.labels.tolist() == [2, 0] and sample.gt_segments.labels.dtype == torch.int64
    assert sample.gt_segments.is_thing.tolist() == [False, True]
    assert sample.segments_info == results['segments_info'] and sample.img_path == 'a.jpg'
    assert sample.ori_shape == (8, 12) and sample.img_shape == (4, 6)
    assert 'sample_idx' not in sample and 'flip_direction' not in sample


def test_pack__without_ground_truth():
    results = {key: value for key, value in _results().items() if not key.startswith('gt_')}
    sample = PackPanopticInputs(meta_keys=('img_id', ))(results)['data_samples']
    assert 'gt_panoptic_seg' not in sample and 'gt_segments' not in sample
    assert sample.metainfo == dict(img_id=3)


def test_pack__annotation_of_a_test_pipeline():
    ids = np.array([[0, 9, 9], [70000, 0, 0]], np.int32)
    results = {key: value for key, value in _results().items() if not key.startswith('gt_')}
    sample = PackPanopticInputs(meta_keys=())(dict(results, gt_segment_ids=ids))['data_samples']
    assert sample.gt_annotation.ids.dtype == torch.int32 and sample.gt_annotation.ids.tolist() == ids.tolist()
    assert sample.gt_annotation.segments == results['segments_info']
    assert 'gt_panoptic_seg' not in sample and 'gt_segments' not in sample


def test_pack__uint16_index_maps_become_int32():
    index = (np.arange(24).reshape(4, 6) * 2700).astype(np.uint16)
    segment_map = PackPanopticInputs()(_results(gt_seg_map=index))['data_samples'].gt_panoptic_seg.segment_map
    assert segment_map.dtype == torch.int32
    assert np.array_equal(segment_map[0].numpy(), index)


def test_pack__flipped_and_cropped_views():
    results = _results()
    image, index = results['img'][1:, ::-1], results['gt_seg_map'][1:, ::-1]
    packed = PackPanopticInputs()(_results(img=image, gt_seg_map=index))
    assert np.array_equal(packed['inputs'].permute(1, 2, 0).numpy(), image)
    assert np.array_equal(packed['data_samples'].gt_panoptic_seg.segment_map[0].numpy(), index)


def test_pack__no_segments():
    empty = _results(gt_segment_labels=np.zeros(0, np.int64), gt_segment_is_thing=np.zeros(0, bool))
    segments = PackPanopticInputs()(empty)['data_samples'].gt_segments
    assert len(segments) == 0 and segments.labels.shape == (0, )


def test_pack__data_loader_pins_image_and_ground_truth(monkeypatch):
    """As the thread of a data loader does, with samples that came from a worker."""
    pinned = []

    def pin(tensor, *_):
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, 'pin_memory', pin)
    packed = pickle.loads(pickle.dumps(PackPanopticInputs()(_results())))
    batch = pin_memory(pseudo_collate([packed]))
    sample, original = batch['data_samples'][0], packed['data_samples']
    tensors = [
        batch['inputs'][0], sample.gt_panoptic_seg.segment_map, sample.gt_segments.labels,
        sample.gt_segments.is_thing
    ]
    assert {id(tensor) for tensor in tensors} == {id(tensor) for tensor in pinned}
    assert torch.equal(sample.gt_segments.labels, original.gt_segments.labels)
    assert sample.metainfo == original.metainfo and type(sample) is type(original)
