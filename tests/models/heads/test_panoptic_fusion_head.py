"""Instances, semantics and original image sizes of kMaX-DeepLab's fusion head."""
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample

from remax_mm.models.heads import KMaXFusionHead, fuse_instances, fuse_panoptic, fuse_semantic
from tests.models.heads.drawn_masks import drawn_classes, drawn_masks
from tests.whole_image_fusion import restore_size


def test_fuse_semantic__equals_the_reference(reference_dir):
    data = np.load(reference_dir / 'panoptic_inference.npz')
    semantic = fuse_semantic(torch.from_numpy(data['class_logits']), torch.from_numpy(data['mask_logits']))
    assert (semantic.numpy() == data['semantic_inference_argmax']).all()


def test_restore_size__equals_the_reference(reference_dir):
    data = np.load(reference_dir / 'eval_postprocess.npz')
    expected = json.loads((reference_dir / 'eval_postprocess.json').read_text())
    # In the reference, the image has round(37 * 65 / 50) = 48 of the rows of the input.
    mask_logits = restore_size(
        torch.from_numpy(data['mask_logits_os4']), expected['input_size'], (48, 65), expected['output'])
    torch.testing.assert_close(
        mask_logits[:6], torch.from_numpy(data['mask_logits_at_37x50']), atol=1e-4, rtol=0)

    segment_map, segments = fuse_panoptic(torch.from_numpy(data['class_logits']), mask_logits, num_things=80)
    assert (segment_map.numpy() == data['panoptic_seg']).all()
    assert [dict(id=s.id, isthing=s.is_thing, category_id=s.category)
            for s in segments] == expected['segments_info']


def test_restore_size__crops_to_the_image_without_an_output_size():
    mask_logits = torch.randn(3, 3, 5)
    enlarged = F.interpolate(mask_logits[None], (9, 17), mode='bilinear', align_corners=True)[0]
    assert torch.equal(restore_size(mask_logits, (9, 17), (7, 11), None), enlarged[:, :7, :11])


def _reference_instances(class_logits, mask_logits, num_things, max_per_image):
    classes, masks = class_logits.softmax(-1)[:, :-1].double(), mask_logits.softmax(0).double()
    pairs = [(classes[slot, label].item(), slot, label) for slot in range(classes.shape[0])
             for label in range(classes.shape[1])]
    found = []
    for score, slot, label in sorted(pairs, reverse=True)[:max_per_image]:
        own = masks[slot] > 0.4
        mask_score = masks[slot][own].sum().item() / max(own.sum().item(), 1)
        if label < num_things:
            found.append((score * mask_score, label, own))
    return found


@pytest.mark.parametrize('max_per_image', [1, 5, 100])
def test_fuse_instances__loops(max_per_image):
    class_logits, mask_logits = torch.randn(6, 5), 3 * torch.randn(6, 4, 5)
    instances = fuse_instances(class_logits, mask_logits, num_things=2, max_per_image=max_per_image)
    expected = _reference_instances(class_logits, mask_logits, 2, max_per_image)
    assert len(instances) == len(expected)
    for index, (score, label, mask) in enumerate(expected):
        assert instances.scores[index].item() == pytest.approx(score, rel=1e-5)
        assert instances.labels[index] == label and torch.equal(instances.masks[index], mask)
        if mask.any():
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert instances.bboxes[index].tolist() == [int(side) for side in box]


def test_fuse_instances__nothing_found():
    instances = fuse_instances(drawn_classes(2, 3), drawn_masks('ab'), num_things=0)
    assert len(instances) == 0
    assert instances.masks.shape == (0, 1, 2) and instances.bboxes.shape == (0, 4)


def test_fuse_semantic__loops():
    class_logits, mask_logits = torch.randn(6, 5), torch.randn(6, 3, 4)
    classes, masks = class_logits.softmax(-1), mask_logits.softmax(0)
    semantic = fuse_semantic(class_logits, mask_logits)
    for row in range(3):
        for column in range(4):
            sums = [
                sum(classes[slot, label] * masks[slot, row, column] for slot in range(6))
                for label in range(4)
            ]
            assert semantic[row, column] == sums.index(max(sums))


def _sample(batch_input_shape, img_shape, ori_shape):
    return DetDataSample(
        metainfo=dict(batch_input_shape=batch_input_shape, img_shape=img_shape, ori_shape=ori_shape))


def test_kmax_fusion_head__ids_as_in_mmdet():
    head = KMaXFusionHead(2, 2)
    result = head.panoptic_postprocess(drawn_classes(1, 3, 1), drawn_masks('aab.', 'cbb.'))
    # label + 1000 * instance for things, the label alone for stuff, K for void
    assert result.sem_seg.dtype == torch.int32
    assert result.sem_seg.tolist() == [[[1001, 1001, 3, 4], [3001, 3, 3, 4]]]
    info = result.metainfo['segments_info']
    assert [(s['id'], s['label'], s['is_thing']) for s in info] == [(1001, 1, True), (3, 3, False),
                                                                    (3001, 1, True)]
    assert all(s['score'] == pytest.approx(1, abs=1e-6) for s in info)


def test_kmax_fusion_head__void_is_the_number_of_classes():
    result = KMaXFusionHead(80, 53).panoptic_postprocess(torch.zeros(3, 134), drawn_masks('ab'))
    assert (result.sem_seg == 133).all() and result.metainfo['segments_info'] == []


def test_kmax_fusion_head__passes_its_options_to_the_fusion():
    class_logits, mask_logits = 2 * torch.randn(6, 5), 4 * torch.randn(6, 5, 7)
    options = dict(
        thing_threshold=0.3,
        stuff_threshold=0.25,
        pixel_threshold=0.35,
        overlap_threshold=0.4,
        class_order_weight=0.5,
        mask_order_weight=2.0,
        thing_area=2,
        stuff_area=3)
    result = KMaXFusionHead(2, 2, test_cfg=options).panoptic_postprocess(class_logits, mask_logits)
    segment_map, segments = fuse_panoptic(class_logits, mask_logits, num_things=2, **options)
    assert len(segments) > 1
    values = [4] + [s.category + 1000 * s.id * s.is_thing for s in segments]
    assert torch.equal(result.sem_seg[0], torch.tensor(values, dtype=torch.int32)[segment_map.long()])


def test_kmax_fusion_head__unknown_option():
    with pytest.raises(ValueError, match=r"but got \['iou_thr', 'object_mask_thr'\]"):
        KMaXFusionHead(2, 2, test_cfg=dict(object_mask_thr=0.8, iou_thr=0.8, thing_threshold=0.7))


def test_kmax_fusion_head__is_registered():
    head = MODELS.build(dict(type='KMaXFusionHead', num_things_classes=2, num_stuff_classes=3, test_cfg=None))
    assert isinstance(head, KMaXFusionHead) and head.num_classes == 5


@pytest.mark.parametrize('rescale', [True, False])
def test_kmax_fusion_head__sizes(rescale):
    # Two images in an input of 17x33: one of the same size, the other with padding on two sides.
    head = KMaXFusionHead(2, 2, test_cfg=dict(instance_on=True, semantic_on=True))
    samples = [_sample((17, 33), (17, 33), (40, 80)), _sample((17, 33), (15, 20, 3), (30, 40, 3))]
    class_logits, mask_logits = 3 * torch.randn(2, 6, 5), 3 * torch.randn(2, 6, 5, 9)
    results = head.predict(class_logits, mask_logits, samples, rescale=rescale)

    for image, (result,
                size) in enumerate(zip(results, [(40, 80), (30, 40)] if rescale else [(17, 33), (15, 20)])):
        logits = F.interpolate(mask_logits[image][None], (17, 33), mode='bilinear', align_corners=True)
        height, width = samples[image].img_shape[:2]
        logits = F.interpolate(logits[..., :height, :width], size, mode='bilinear', align_corners=True)[0]
        assert set(result) == {'pan_results', 'ins_results', 'sem_results'}
        assert result['pan_results'].sem_seg.shape == (1, *size)
        expected = head.panoptic_postprocess(class_logits[image], logits)
        assert torch.equal(result['pan_results'].sem_seg, expected.sem_seg)
        assert torch.equal(result['ins_results'].masks,
                           head.instance_postprocess(class_logits[image], logits).masks)
        assert torch.equal(result['sem_results'].sem_seg[0], fuse_semantic(class_logits[image], logits))


@pytest.mark.parametrize('test_cfg, keys', [(None, ['pan_results']),
                                            (dict(panoptic_on=False, semantic_on=True), ['sem_results']),
                                            (dict(panoptic_on=False, instance_on=True), ['ins_results'])])
def test_kmax_fusion_head__returns_the_requested_results(test_cfg, keys):
    head = KMaXFusionHead(2, 2, test_cfg=test_cfg)
    results = head.predict(torch.randn(1, 3, 5), torch.randn(1, 3, 3, 3), [_sample((9, 9), (9, 9), (9, 9))])
    assert [list(result) for result in results] == [keys]


def test_kmax_fusion_head__number_of_instances():
    head = KMaXFusionHead(3, 1, test_cfg=dict(max_per_image=4, pixel_threshold=0.1))
    class_logits, mask_logits = torch.randn(5, 5), torch.randn(5, 3, 4)
    instances = head.instance_postprocess(class_logits, mask_logits)
    expected = fuse_instances(class_logits, mask_logits, num_things=3, pixel_threshold=0.1, max_per_image=4)
    assert len(instances) == len(expected) <= 4
    assert torch.equal(instances.scores, expected.scores) and torch.equal(instances.masks, expected.masks)
