"""Ground truth for mmdet's heads from index maps, compared with mmdet's own loader and with a loop."""

import pytest
import torch
from mmcv.transforms import Compose
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.utils import preprocess_panoptic_gt
from mmdet.registry import MODELS, TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData

from remax_mm.datasets.mini_panoptic import MiniPanopticMapDataset, write_mini_panoptic
from remax_mm.models.data_preprocessors import (MaskFormerDataPreprocessor, find_visible_things,
                                                split_segment_map)

LABELS, IS_THING = torch.tensor([2, 0, 2, 1, 0]), torch.tensor([False, True, False, True, True])


def _sample(segment_map) -> DetDataSample:
    sample = DetDataSample(metainfo=dict(img_path='photo.jpg', img_shape=segment_map.shape[-2:]))
    sample.gt_panoptic_seg = PixelData(segment_map=segment_map)
    sample.gt_segments = InstanceData(labels=LABELS.clone(), is_thing=IS_THING.clone())
    return sample


def _batch(*sizes):
    maps = [torch.randint(0, 5, (1, *size), dtype=torch.uint8) for size in sizes]  # segment 5 has no pixel
    inputs = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]
    return dict(inputs=inputs, data_samples=[_sample(segment_map) for segment_map in maps])


def test_split_segment_map__loops():
    segment_map = torch.randint(0, 5, (1, 6, 7), dtype=torch.uint8)
    things = find_visible_things(segment_map, LABELS, IS_THING)
    instances, semantic = split_segment_map(segment_map, LABELS, things)
    masks = instances.masks.to_tensor(torch.bool, 'cpu')

    # Segments 2 and 4 are visible things, segment 5 is a thing without pixels.
    assert instances.labels.tolist() == [0, 1]
    assert masks.shape == (2, 6, 7) and semantic.sem_seg.shape == (1, 6, 7)
    for y in range(6):
        for x in range(7):
            segment = int(segment_map[0, y, x])
            assert semantic.sem_seg[0, y, x] == (int(LABELS[segment - 1]) if segment else 255)
            assert masks[:, y, x].tolist() == [segment == 2, segment == 4]


def test_find_visible_things__wrong_input_and_none():
    with pytest.raises(ValueError, match='up to 5, the number of segments, but got 6'):
        find_visible_things(torch.full((1, 2, 2), 6), LABELS, IS_THING)
    with pytest.raises(ValueError, match='below 255'):
        find_visible_things(torch.zeros(1, 2, 2, dtype=torch.uint8), LABELS + 253, IS_THING)
    void = torch.zeros(1, 2, 3, dtype=torch.uint8)
    empty, semantic = split_segment_map(void, LABELS[:0], find_visible_things(void, LABELS[:0], IS_THING[:0]))
    assert len(empty) == 0 and empty.masks.to_tensor(torch.bool, 'cpu').shape == (0, 2, 3)
    assert (semantic.sem_seg == 255).all()


def test_preprocessor__pads_with_void():
    batch = _batch((20, 30), (33, 8))
    maps = [sample.gt_panoptic_seg.segment_map.clone() for sample in batch['data_samples']]
    options = dict(mean=[10.] * 3, std=[2.] * 3, pad_size_divisor=32)
    out = MaskFormerDataPreprocessor(**options)(batch, training=True)
    assert out['inputs'].shape == (2, 3, 64, 32)
    for segment_map, sample in zip(maps, out['data_samples']):
        height, width = segment_map.shape[-2:]
        things = find_visible_things(segment_map, LABELS, IS_THING)
        expected, semantic = split_segment_map(segment_map, LABELS, things)
        masks = sample.gt_instances.masks.to_tensor(torch.bool, 'cpu')
        assert torch.equal(masks[:, :height, :width], expected.masks.to_tensor(torch.bool, 'cpu'))
        assert not masks[:, height:].any() and not masks[:, :, width:].any()
        assert torch.equal(sample.gt_sem_seg.sem_seg[:, :height, :width], semantic.sem_seg)
        assert (sample.gt_sem_seg.sem_seg[:, height:] == 255).all()
        assert (sample.gt_sem_seg.sem_seg[:, :, width:] == 255).all()


def test_preprocessor__fixed_size_of_batch_augments():
    augment = dict(type='mmdet.BatchFixedSizePad', size=(40, 50))
    out = MaskFormerDataPreprocessor(batch_augments=[augment])(_batch((20, 30)), training=True)
    sample = out['data_samples'][0]
    assert out['inputs'].shape[-2:] == sample.gt_sem_seg.sem_seg.shape[-2:] == (40, 50)
    assert sample.gt_instances.masks.masks.shape[-2:] == (40, 50)


def test_preprocessor__equals_mmdets_at_test():
    batch = _batch((20, 30))
    images = [image.clone() for image in batch['inputs']]
    options = dict(mean=[10.] * 3, std=[2.] * 3, bgr_to_rgb=True, pad_size_divisor=32)
    out = MODELS.build(dict(type='MaskFormerDataPreprocessor', **options))(batch)
    mmdets = DetDataPreprocessor(**options)(dict(inputs=images, data_samples=None))
    assert torch.equal(out['inputs'], mmdets['inputs'])
    assert 'gt_instances' not in out['data_samples'][0] and 'gt_sem_seg' not in out['data_samples'][0]


def test_preprocessor__error_names_the_image():
    batch = _batch((20, 30))
    del batch['data_samples'][0].gt_panoptic_seg
    with pytest.raises(ValueError, match='photo.jpg has none'):
        MaskFormerDataPreprocessor()(batch, training=True)
    batch = _batch((20, 30))
    batch['data_samples'][0].gt_panoptic_seg.segment_map.fill_(9)
    with pytest.raises(ValueError, match='photo.jpg'):
        MaskFormerDataPreprocessor()(batch, training=True)


def _targets(preprocessor, data: dict, num_things: int, num_stuff: int):
    """The targets of mmdet's heads for a sample: (label, mask) of each segment."""
    batch = preprocessor(dict(inputs=[data['inputs']], data_samples=[data['data_samples']]), training=True)
    sample = batch['data_samples'][0]
    labels, masks = preprocess_panoptic_gt(sample.gt_instances.labels, sample.gt_instances.masks,
                                           sample.gt_sem_seg.sem_seg, num_things, num_stuff)
    return sorted((int(label), mask.numpy().tobytes()) for label, mask in zip(labels, masks))


@pytest.mark.parametrize('num_stuff', [5, 0])
def test_preprocessor__equals_mmdets_loader_on_mini_images(tmp_path, num_stuff):
    write_mini_panoptic(tmp_path, 6, 1, 65, 0)
    dataset = MiniPanopticMapDataset(
        data_root=str(tmp_path),
        ann_file='annotations/panoptic_train.json',
        data_prefix=dict(img='images/train/', seg='annotations/panoptic_train/'))
    with DefaultScope.overwrite_default_scope('mmdet'):
        flip = TRANSFORMS.build(dict(type='RandomFlip', prob=1.))
        ours = Compose([dict(type='LoadImageFromFile'), dict(type='LoadPanopticMap'), flip,
                        dict(type='PackPanopticInputs')])  # yapf: disable
        mmdets = Compose([dict(type='LoadImageFromFile'),
                          dict(type='LoadPanopticAnnotations', with_bbox=False, with_label=False), flip,
                          dict(type='PackDetInputs', meta_keys=('img_shape', ))])  # yapf: disable
    theirs = DetDataPreprocessor(pad_size_divisor=32, pad_mask=True, pad_seg=True)

    found = 0
    for index in range(6):
        record = dataset.get_data_info(index)
        # mmdet's own dataset has no masks for crowd regions.
        mmdet_record = dict(record, segments_info=[
            dict(info, is_thing=info['is_thing'] and not info['iscrowd'])
            for info in record['segments_info']])  # yapf: disable
        expected = mmdets(mmdet_record)
        things = [info['category'] for info in record['segments_info']
                  if info['is_thing'] and not info['iscrowd']]  # yapf: disable
        expected['data_samples'].gt_instances.labels = torch.tensor(things, dtype=torch.int64)
        segments = _targets(MaskFormerDataPreprocessor(pad_size_divisor=32), ours(record), 7, num_stuff)
        assert segments == _targets(theirs, expected, 7, num_stuff)
        found += len(segments)
    assert found > 12
