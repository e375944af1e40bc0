"""Loading of index maps, against a loop over pixels and against the areas in the JSON."""
import json

import cv2
import numpy as np
import pytest
from mmdet.registry import TRANSFORMS

from remax_mm.datasets.coco_panoptic import CocoPanopticMapDataset
from remax_mm.datasets.transforms.load_panoptic_map import LoadPanopticMap
from tests.panoptic_cases import index_by_loop


def _load(tiny_set, image_id, load=dict(type='LoadPanopticMap'), **changes):
    data = CocoPanopticMapDataset(**tiny_set.arguments())
    record = next(r for r in (data.get_data_info(i) for i in range(len(data))) if r['img_id'] == image_id)
    record.update(changes)
    return TRANSFORMS.build(load)(record)


def test_load_panoptic_map__tables_and_void(tiny_set):
    results = _load(tiny_set, 1)
    # The crowd region (id 1000) has no row in the tables; it is void, like the unlabeled last row of pixels.
    table_ids = [300000, 65536 * 7 + 256 * 5 + 3, 255, 256, 77]
    assert np.array_equal(results['gt_seg_map'], index_by_loop(tiny_set.ids[1], table_ids))
    assert results['gt_segment_labels'].tolist() == [3, 2, 0, 0, 1]
    assert results['gt_segment_is_thing'].tolist() == [False, False, True, True, True]
    assert results['gt_seg_map'].dtype == np.uint8
    assert results['gt_segment_labels'].dtype == np.int64 and results['gt_segment_is_thing'].dtype == bool
    assert (results['gt_seg_map'] == 5).sum() == 1  # the dog has a single pixel


def test_load_panoptic_map__images_without_segments(tiny_set):
    for image_id in (3, 4):
        results = _load(tiny_set, image_id)
        assert not results['gt_seg_map'].any()
        assert results['gt_segment_labels'].shape == results['gt_segment_is_thing'].shape == (0, )


def test_load_panoptic_map__size_differs_from_the_photo(tiny_set):
    with pytest.raises(ValueError, match=r'001_panoptic.png to have the size \(21, 30\).* \(20, 30\)'):
        _load(tiny_set, 1, ori_shape=(21, 30))
    with pytest.raises(ValueError, match=r'\(20, 31\)'):
        _load(tiny_set, 1, width=31)
    # After a resize, the original size is expected.
    assert _load(tiny_set, 1, ori_shape=(20, 30), img_shape=(40, 60))['gt_seg_map'].shape == (20, 30)


def test_load_panoptic_map__area_differs(tiny_set):
    area = int((tiny_set.ids[1] == 255).sum())

    def change(content):
        segments = next(a for a in content['annotations'] if a['image_id'] == 1)['segments_info']
        next(s for s in segments if s['id'] == 255)['area'] = area + 1

    tiny_set.rewrite(change)
    with pytest.raises(
            ValueError, match=f'segment 255 to have {area + 1} pixels, .* {area} in .*001_panoptic'):
        _load(tiny_set, 1)
    assert _load(tiny_set, 1, dict(type='LoadPanopticMap', check_segments=False))['gt_seg_map'].any()


def test_load_panoptic_map__ids_differ(tiny_set):
    ids = tiny_set.ids[1].copy()
    ids[ids == 255] = 254
    tiny_set.write_png(1, ids)
    with pytest.raises(ValueError, match=r'001_panoptic.png .*JSON lacks \[254\] and the PNG lacks \[255\]'):
        _load(tiny_set, 1)
    results = _load(tiny_set, 1, dict(type='LoadPanopticMap', check_segments=False))
    assert not (results['gt_seg_map'] == 3).any() and (results['gt_seg_map'][ids == 254] == 0).all()

    tiny_set.write_png(1, np.where(ids == 1000, 300000, tiny_set.ids[1]))
    with pytest.raises(ValueError, match=r'JSON lacks none and the PNG lacks \[1000\]'):
        _load(tiny_set, 1)


def test_load_panoptic_map__repeated_id(tiny_set):
    segments = [dict(id=12, category=2, is_thing=False, iscrowd=False)] * 2
    with pytest.raises(
            ValueError, match='different ids in .*002_panoptic.png, but got 2 segments with 1 ids'):
        _load(tiny_set, 2, segments_info=segments)


@pytest.mark.parametrize('segment_id', [0, 256**3])
def test_load_panoptic_map__invalid_id(tiny_set, segment_id):
    segments = [
        dict(id=12, category=2, is_thing=False, iscrowd=False),
        dict(id=segment_id, category=0, is_thing=True, iscrowd=False)
    ]
    with pytest.raises(ValueError, match=rf'from 1 to 16777215 .*002_panoptic.png, but got \[{segment_id}\]'):
        _load(tiny_set, 2, segments_info=segments)


def test_load_panoptic_map__image_without_a_record():
    results = dict(img=np.zeros((4, 6, 3), np.uint8), img_path='holiday.jpg', ori_shape=(4, 6))
    assert LoadPanopticMap()(dict(results)).keys() == results.keys()


def test_load_panoptic_map__missing_or_broken_png(tiny_set):
    with pytest.raises(ValueError, match='001.png, but its record has none'):
        _load(tiny_set, 1, seg_map_path=None)
    broken = tiny_set.root / 'png' / 'broken.png'
    broken.write_bytes(b'not an image')
    with pytest.raises(ValueError, match='broken.png is no PNG'):
        _load(tiny_set, 1, seg_map_path=str(broken))


def test_load_panoptic_map__areas_of_coco_images(coco_sample):
    prefix = dict(img='val2017/', seg='annotations/panoptic_val2017/')
    data = CocoPanopticMapDataset(
        data_root=str(coco_sample),
        ann_file='annotations/panoptic_val2017.json',
        data_prefix=prefix,
        pipeline=[dict(type='LoadImageFromFile'),
                  dict(type='LoadPanopticMap')])
    content = json.loads((coco_sample / 'annotations' / 'panoptic_val2017.json').read_text())
    infos = {annotation['image_id']: annotation['segments_info'] for annotation in content['annotations']}
    segments = {key: [s for s in info if not s['iscrowd']] for key, info in infos.items()}
    crowds = {key: [s for s in info if s['iscrowd']] for key, info in infos.items()}
    for i in range(2):
        results = data[i]
        index, expected = results['gt_seg_map'], segments[results['img_id']]
        assert index.shape == results['img'].shape[:2]
        areas = np.bincount(index.ravel(), minlength=len(expected) + 1)
        assert areas[1:].tolist() == [segment['area'] for segment in expected]
        # All other pixels are void: unlabeled or crowd.
        png = cv2.imread(results['seg_map_path'])
        unlabeled = (png == 0).all(-1).sum()
        assert areas[0] == unlabeled + sum(segment['area'] for segment in crowds[results['img_id']])
    assert sum(len(s) for s in segments.values()) + sum(len(s) for s in crowds.values()) == 50
