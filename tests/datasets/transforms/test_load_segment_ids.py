"""Segment ids of test pipelines."""
import numpy as np
import pytest
from mmdet.registry import TRANSFORMS

from remax_mm.datasets.coco_panoptic import CocoPanopticMapDataset


def _load(tiny_set, image_id, **kwargs):
    data = CocoPanopticMapDataset(**tiny_set.arguments(test_mode=True))
    record = next(r for r in (data.get_data_info(i) for i in range(len(data))) if r['img_id'] == image_id)
    return TRANSFORMS.build(dict(type='LoadSegmentIds', **kwargs))(record)


def test_load_segment_ids__all_segments_with_crowd(tiny_set):
    results = _load(tiny_set, 1)
    assert np.array_equal(results['gt_segment_ids'], tiny_set.ids[1])
    assert results['gt_segment_ids'].dtype == np.int32 and (results['gt_segment_ids'] == 1000).any()
    assert [segment['id'] for segment in results['segments_info'] if segment['iscrowd']] == [1000]
    assert 'gt_seg_map' not in results


def test_load_segment_ids__resizing_and_flipping_do_not_change_them(tiny_set):
    results = dict(_load(tiny_set, 1), img=np.zeros((20, 30, 3), np.uint8))
    for step in (dict(type='Resize', scale=(60, 60), keep_ratio=True), dict(type='RandomFlip', prob=1.)):
        results = TRANSFORMS.build(step)(results)
    assert results['img'].shape == (40, 60, 3) and results['flip']
    sample = TRANSFORMS.build(dict(type='PackPanopticInputs'))(results)['data_samples']
    assert np.array_equal(sample.gt_annotation.ids.numpy(), tiny_set.ids[1])


def test_load_segment_ids__unlisted_ids(tiny_set):
    ids = np.where(tiny_set.ids[1] == 255, 254, tiny_set.ids[1])
    tiny_set.write_png(1, ids)
    with pytest.raises(ValueError, match=r'001_panoptic.png .*JSON lacks \[254\] and the PNG lacks \[255\]'):
        _load(tiny_set, 1)
    assert np.array_equal(_load(tiny_set, 1, check_segments=False)['gt_segment_ids'], ids)
