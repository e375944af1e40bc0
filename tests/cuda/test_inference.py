"""Fusion, test-time augmentation and tiles on a GPU give what they give on the CPU."""
import copy

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample

from remax_mm.models.heads.mask_rows import restored_rows
from tests.color_model import (CAT, CAT_2, DOG, GRASS, SKY, as_input, assert_same_segments, away_from_borders,
                               color_detector, paint, truth)
from tests.whole_image_fusion import restore_size

S = slice


@pytest.mark.parametrize('head_type', ['KMaXFusionHead', 'MaXFusionHead'])
def test_fusion_head__results_of_the_cpu(head_type, reference_dir, device):
    """For 32 slots and the classes of COCO; other tests compare what the CPU gives with reference code."""
    test_cfg = dict(instance_on=True, semantic_on=True, thing_area=20, stuff_area=20)
    head = MODELS.build(dict(type=head_type, num_things_classes=80, num_stuff_classes=53, test_cfg=test_cfg))
    data = np.load(reference_dir / 'panoptic_inference.npz')
    logits = [torch.from_numpy(data[name])[None] for name in ('class_logits', 'mask_logits')]
    size = tuple(data['mask_logits'].shape[1:])
    sample = DetDataSample(metainfo=dict(batch_input_shape=size, img_shape=size, ori_shape=size))
    expected, = head.predict(*logits, [sample], rescale=True)
    found, = head.predict(*(part.to(device) for part in logits), [sample], rescale=True)

    panoptic, expected_panoptic = found['pan_results'], expected['pan_results']
    assert panoptic.sem_seg.device.type == device.type
    assert torch.equal(panoptic.sem_seg.cpu(), expected_panoptic.sem_seg)
    assert len(panoptic.segments_info) == len(expected_panoptic.segments_info) > 5
    for info, expected_info in zip(panoptic.segments_info, expected_panoptic.segments_info):
        assert info == {**expected_info, 'score': pytest.approx(expected_info['score'], rel=1e-5)}
    assert torch.equal(found['sem_results'].sem_seg.cpu(), expected['sem_results'].sem_seg)
    instances, expected_instances = found['ins_results'].cpu(), expected['ins_results']
    for field in ('masks', 'labels', 'bboxes'):
        assert torch.equal(instances[field], expected_instances[field]), field
    torch.testing.assert_close(instances.scores, expected_instances.scores, rtol=1e-5, atol=0)


def test_restored_rows__equal_the_whole_image(device):
    """Resizing in strips rounds like resizing the whole image."""
    mask_logits = 5 * torch.randn(20, 65, 65, device=device)
    geometry = ((257, 257), (193, 257), (480, 640))
    expected = restore_size(mask_logits, *geometry)
    rows = restored_rows(mask_logits, *geometry)
    torch.testing.assert_close(rows.whole(), expected, rtol=0, atol=1e-5)


def _on_both(config, batch, device):
    """The panoptic results of the first image, on the CPU and on the GPU."""
    model = MODELS.build(config).eval()
    results = []
    for place in (torch.device('cpu'), device):
        torch.manual_seed(0)  # the model draws the order of its slots
        with torch.no_grad():
            result, = copy.deepcopy(model).to(place).test_step(copy.deepcopy(batch))
        results.append(result.pred_panoptic_seg)
    return results


def _assert_same_results(found, expected, image, inside):
    assert_same_segments(expected.sem_seg[0].cpu().numpy(), truth(image), inside)
    assert_same_segments(found.sem_seg[0].cpu().numpy(), truth(image), inside)
    scores, expected_scores = ({
        info['id']: info['score']
        for info in panoptic.segments_info
    } for panoptic in (found, expected))
    assert scores == pytest.approx(expected_scores, rel=1e-4)


@pytest.mark.parametrize('with_scales', [False, True])
def test_panoptic_tta__result_of_the_cpu(with_scales, device):
    image = paint((48, 60), (SKY, S(0, 20), S(None)), (GRASS, S(20, 40), S(None)), (CAT, S(10, 30), S(5, 20)),
                  (CAT_2, S(10, 30), S(20, 26)), (DOG, S(4, 16), S(40, 56)))
    pixels = as_input(image)
    views = [(pixels, None), (pixels.flip(-1), 'horizontal'), (pixels.flip(-2), 'vertical')]
    if with_scales:
        views += [(pixels[:, ::2, ::2], None), (pixels.repeat_interleave(2, 1).repeat_interleave(2, 2), None)]
    batch = dict(inputs=[[view] for view, _ in views], data_samples=[])
    for view, direction in views:
        metainfo = dict(img_shape=view.shape[-2:], ori_shape=image.shape[:2], flip=direction is not None)
        batch['data_samples'].append([DetDataSample(metainfo=dict(metainfo, flip_direction=direction))])

    config = dict(type='PanopticTTAModel', module=color_detector())
    expected, found = _on_both(config, batch, device)
    assert found.sem_seg.device.type == device.type
    inside = away_from_borders(image, 2) if with_scales else ...
    _assert_same_results(found, expected, image, inside)


@pytest.mark.parametrize('stride', [1, 4])
def test_tiled_panoptic__result_of_the_cpu(stride, device):
    size = (140, 200)
    image = paint(size, (SKY, S(0, 70), S(None)), (CAT, S(8, 36), S(4, 192)), (CAT_2, S(36, 136), S(4, 32)),
                  (DOG, S(40, 60), S(160, None)))
    sample = DetDataSample(metainfo=dict(img_path='drawn', img_shape=size, ori_shape=size))
    batch = dict(inputs=[as_input(image)], data_samples=[sample])
    module = color_detector(stride=stride)
    config = dict(type='TiledPanopticModel', module=module, tile_size=65, overlap=16)
    expected, found = _on_both(config, batch, device)
    inside = ... if stride == 1 else away_from_borders(image, stride)
    _assert_same_results(found, expected, image, inside)
