"""Fusion in strips of rows gives what the plain algorithms on whole images give."""
import pytest
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample

from remax_mm.analysis.training_overhead import TensorMemory
from remax_mm.models.heads import (KMaXFusionHead, MaXFusionHead, fuse_instances, fuse_panoptic,
                                   fuse_panoptic_pixelwise, fuse_semantic, mask_rows)
from remax_mm.models.heads.mask_rows import restored_rows
from tests import whole_image_fusion

NUM_CLASSES = 6
NUM_THINGS = 3
GEOMETRY = dict(input_size=(65, 97), image_size=(65, 80), output_size=(83, 101))


@pytest.fixture(autouse=True)
def _smallest_strips(monkeypatch):
    """One thread, because the last bits of a softmax depend on how its pixels are divided among threads."""
    monkeypatch.setitem(mask_rows.STRIP_ELEMENTS, 'cpu', 1)
    monkeypatch.setitem(mask_rows.RESIZED_ELEMENTS, 'cpu', 2**14)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def _logits(seed, num_slots=12, num_confident=9, duplicates=False):
    """Class logits, and mask logits at stride 4 with blobs of several pixels."""
    generator = torch.Generator().manual_seed(seed)
    class_logits = 3 * torch.randn(num_slots, NUM_CLASSES + 1, generator=generator)
    class_logits[num_confident:, -1] += 20
    coarse = 6 * torch.randn(1, num_slots, 4, 5, generator=generator)
    mask_logits = F.interpolate(coarse, (17, 25), mode='bilinear', align_corners=True)[0]
    if duplicates:  # pairs of slots with the same masks and classes
        class_logits[1::2], mask_logits[1::2] = class_logits[::2], mask_logits[::2]
    return class_logits, mask_logits


def _whole(mask_logits):
    x = F.interpolate(mask_logits[None].float(), GEOMETRY['input_size'], mode='bilinear', align_corners=True)
    height, width = GEOMETRY['image_size']
    x = x[..., :height, :width]
    return F.interpolate(x, GEOMETRY['output_size'], mode='bilinear', align_corners=True)[0]


def _assert_same_map(found, expected):
    """Equal maps and segments; scores may differ by rounding, since the order of a sum differs."""
    assert found[0].dtype == expected[0].dtype and torch.equal(found[0], expected[0])
    assert [segment[:3] for segment in found[1]] == [segment[:3] for segment in expected[1]]
    assert [s.score for s in found[1]] == pytest.approx([s.score for s in expected[1]], rel=3e-6)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('duplicates', [False, True])
@pytest.mark.parametrize('pixel_threshold', [0.05, 0.2, 0.3, 1 / 3, 0.334, 0.335, 0.4, 0.49, 0.5, 0.7])
@pytest.mark.parametrize('options', [
    dict(),
    dict(overlap_threshold=0.3),
    dict(overlap_threshold=0.0, class_order_weight=0.3, mask_order_weight=2.0),
    dict(thing_area=300, stuff_area=900),
])
def test_fuse_panoptic__equals_whole_image(seed, duplicates, pixel_threshold, options):
    options = dict(
        num_things=NUM_THINGS,
        pixel_threshold=pixel_threshold,
        thing_threshold=0.4,
        stuff_threshold=0.3,
        **options)
    class_logits, mask_logits = _logits(seed, duplicates=duplicates)
    whole = _whole(mask_logits)
    expected = whole_image_fusion.fuse_panoptic(class_logits, whole, **options)
    _assert_same_map(fuse_panoptic(class_logits, whole, **options), expected)
    rows = restored_rows(mask_logits, **GEOMETRY)
    _assert_same_map(fuse_panoptic(class_logits, rows, **options), expected)


def test_fuse_panoptic__cases_contain_overlaps():
    """Otherwise the test above says nothing about pixels of two slots."""
    num_shared = 0
    for seed in range(3):
        own = _whole(_logits(seed)[1]).softmax(0) > 0.335
        num_shared += int((own.sum(0) == 2).sum())
    assert num_shared > 500


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('pixel_threshold', [0.2, 0.4, 0.8])
@pytest.mark.parametrize('options', [dict(), dict(class_threshold=0.3), dict(thing_area=300, stuff_area=900)])
def test_fuse_panoptic_pixelwise__equals_whole_image(seed, pixel_threshold, options):
    options = dict(num_things=NUM_THINGS, pixel_threshold=pixel_threshold, **options)
    class_logits, mask_logits = _logits(seed, duplicates=seed == 2)
    whole = _whole(mask_logits)
    expected = whole_image_fusion.fuse_panoptic_pixelwise(class_logits, whole, **options)
    _assert_same_map(fuse_panoptic_pixelwise(class_logits, whole, **options), expected)
    rows = restored_rows(mask_logits, **GEOMETRY)
    _assert_same_map(fuse_panoptic_pixelwise(class_logits, rows, **options), expected)


@pytest.mark.parametrize('pixel_threshold', [0.01, 0.1, 0.4])
def test_fuse_panoptic_pixelwise__ties(pixel_threshold):
    """Between kept slots the first wins; a slot that is not kept does not win a tie with a kept one."""
    options = dict(num_things=NUM_THINGS, pixel_threshold=pixel_threshold)
    class_logits, mask_logits = _logits(3, num_confident=6)
    class_logits[:6, :6] += 20 * torch.eye(6)
    mask_logits[1], mask_logits[6] = mask_logits[0], mask_logits[2]
    for tied in (mask_logits, mask_logits.round(), torch.full_like(mask_logits, -3.)):
        whole = _whole(tied)
        best = whole.amax(0)
        is_tied = (whole[2] == best) & (whole[6] == best)
        assert is_tied.any()
        expected = whole_image_fusion.fuse_panoptic_pixelwise(class_logits, whole, **options)
        rows = restored_rows(tied, **GEOMETRY)
        _assert_same_map(fuse_panoptic_pixelwise(class_logits, rows, **options), expected)


@pytest.mark.parametrize('size, image_size, output_size', [
    ((5, 6), (17, 21), (17, 21)),
    ((33, 9), (129, 33), (201, 40)),
    ((10, 40), (31, 150), (31, 150)),
    ((40, 31), (157, 119), (63, 48)),
])
@pytest.mark.parametrize('num_confident', [1, 5, 12])
def test_fuse__sizes(size, image_size, output_size, num_confident):
    class_logits, _ = _logits(4, num_confident=num_confident)
    class_logits[:num_confident, 1] += 20
    mask_logits = 4 * torch.randn(12, *size, generator=torch.Generator().manual_seed(4))
    input_size = [4 * (side - 1) + 1 for side in size]
    geometry = dict(input_size=input_size, image_size=image_size, output_size=output_size)
    whole = whole_image_fusion.restore_size(mask_logits, **geometry)
    rows = restored_rows(mask_logits, **geometry)
    for pixel_threshold in (0.1, 0.4):
        options = dict(num_things=NUM_THINGS, pixel_threshold=pixel_threshold)
        expected = whole_image_fusion.fuse_panoptic_pixelwise(class_logits, whole, **options)
        assert (expected[0] > 0).any()
        _assert_same_map(fuse_panoptic_pixelwise(class_logits, rows, **options), expected)
    assert torch.equal(
        fuse_semantic(class_logits, rows), whole_image_fusion.fuse_semantic(class_logits, whole))


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('max_per_image', [3, 100])
@pytest.mark.parametrize('pixel_threshold', [0.1, 0.4])
def test_fuse_instances__equals_whole_image(seed, max_per_image, pixel_threshold):
    options = dict(num_things=NUM_THINGS, pixel_threshold=pixel_threshold, max_per_image=max_per_image)
    class_logits, mask_logits = _logits(seed)
    whole = _whole(mask_logits)
    expected = whole_image_fusion.fuse_instances(class_logits, whole, **options)
    for masks in (whole, restored_rows(mask_logits, **GEOMETRY)):
        found = fuse_instances(class_logits, masks, **options)
        for field in ('masks', 'labels', 'bboxes'):
            assert torch.equal(found[field], expected[field]), field
        torch.testing.assert_close(found.scores, expected.scores, rtol=3e-6, atol=0)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('void_logit', [0, 4, 8, 12])
@pytest.mark.parametrize('num_confident', [0, 4, 12])
def test_fuse_semantic__equals_whole_image(seed, void_logit, num_confident):
    """Also where slots that are nearly void decide, alone or together with others."""
    class_logits, mask_logits = _logits(seed)
    class_logits[num_confident:, -1] += void_logit
    whole = _whole(mask_logits)
    expected = whole_image_fusion.fuse_semantic(class_logits, whole)
    assert void_logit > 4 or len(expected.unique()) > 1
    assert torch.equal(fuse_semantic(class_logits, whole), expected)
    assert torch.equal(fuse_semantic(class_logits, restored_rows(mask_logits, **GEOMETRY)), expected)


def test_fuse_semantic__void_slots_decide_together():
    # Slot 0 has class 0; 20 slots have class 1 with a probability of 0.019, 0.9 * 0.019 = 0.0171 in total.
    classes = torch.zeros(22, 3)
    classes[0], classes[1:21] = torch.tensor([1., 0., 0.]), torch.tensor([0., 0.019, 0.981])
    classes[21] = torch.tensor([0., 0., 1.])
    masks = torch.tensor([0.01] + [0.045] * 20 + [0.09])[:, None, None]
    assert fuse_semantic(classes.clamp(min=1e-9).log(), masks.log()).tolist() == [[1]]
    masks = torch.tensor([0.02] + [0.045] * 20 + [0.08])[:, None, None]
    assert fuse_semantic(classes.clamp(min=1e-9).log(), masks.log()).tolist() == [[0]]


def test_fuse_semantic__a_class_without_a_slot_decides():
    # Each of 30 slots has a class of its own with 0.03, and class 30 with 0.019: 0.019 in total.
    classes = torch.zeros(30, 32)
    classes[:, :30], classes[:, 30], classes[:, 31] = 0.03 * torch.eye(30), 0.019, 0.951
    share = torch.tensor([[0.9, 0.3]])  # of slot 7: 0.027 and 0.009 for class 7
    masks = ((1 - share) / 29).repeat(30, 1, 1)
    masks[7] = share
    assert fuse_semantic(classes.clamp(min=1e-9).log(), masks.log()).tolist() == [[7, 30]]


def test_fuse_semantic__ties():
    """The first class wins, also among classes that are nearly impossible."""
    class_logits, mask_logits = _logits(5)
    class_logits[:, [1, 4]] = class_logits.amax(1, keepdim=True)
    for void_logit in (0, 30, 300):
        class_logits[:, -1] = void_logit
        for tied in (mask_logits, torch.zeros_like(mask_logits)):
            expected = whole_image_fusion.fuse_semantic(class_logits, _whole(tied))
            found = fuse_semantic(class_logits, restored_rows(tied, **GEOMETRY))
            assert torch.equal(found, expected) and (found != 4).all()


@pytest.mark.parametrize('num_classes', [1, 2])
def test_fuse_semantic__few_classes(num_classes):
    class_logits, mask_logits = torch.randn(4, num_classes + 1), torch.randn(4, 5, 7)
    expected = whole_image_fusion.fuse_semantic(class_logits, mask_logits)
    assert torch.equal(fuse_semantic(class_logits, mask_logits), expected)


@pytest.mark.parametrize('fuse, name', [(fuse_panoptic, 'fuse_panoptic'),
                                        (fuse_panoptic_pixelwise, 'fuse_panoptic_pixelwise')])
@pytest.mark.parametrize('num_confident', [0, 1])
def test_fuse__no_or_one_confident_slot(fuse, name, num_confident):
    class_logits, mask_logits = _logits(0, num_confident=num_confident)
    class_logits[:num_confident, 2] += 20
    mask_logits[0] += 8
    expected = getattr(whole_image_fusion, name)(class_logits, _whole(mask_logits), num_things=NUM_THINGS)
    assert len(expected[1]) == num_confident
    _assert_same_map(
        fuse(class_logits, restored_rows(mask_logits, **GEOMETRY), num_things=NUM_THINGS), expected)


def test_fuse__a_single_slot():
    class_logits, mask_logits = _logits(1, num_slots=1, num_confident=1)
    class_logits[0, 0] += 20
    rows = restored_rows(mask_logits, **GEOMETRY)
    for fuse in (fuse_panoptic, fuse_panoptic_pixelwise):
        segment_map, segments = fuse(class_logits, rows, num_things=NUM_THINGS)
        assert segment_map.shape == GEOMETRY['output_size'] and (segment_map == 1).all()
        assert [segment[:3] for segment in segments] == [(1, 0, True)]


@pytest.mark.parametrize('dtype', [torch.float16, torch.float64])
def test_fuse__other_types(dtype):
    class_logits, mask_logits = (logits.to(dtype) for logits in _logits(2))
    whole = _whole(mask_logits)
    for name in ('fuse_panoptic', 'fuse_panoptic_pixelwise'):
        expected = getattr(whole_image_fusion, name)(class_logits, whole, num_things=NUM_THINGS)
        rows = restored_rows(mask_logits, **GEOMETRY)
        found = dict(
            fuse_panoptic=fuse_panoptic, fuse_panoptic_pixelwise=fuse_panoptic_pixelwise)[name](
                class_logits, rows, num_things=NUM_THINGS)
        _assert_same_map(found, expected)


def _predict(head, class_logits, mask_logits, **metainfo):
    metainfo = dict(
        batch_input_shape=GEOMETRY['input_size'],
        img_shape=GEOMETRY['image_size'],
        ori_shape=GEOMETRY['output_size'],
        **metainfo)
    sample = DetDataSample(metainfo=metainfo)
    return head.predict(class_logits[None], mask_logits[None], [sample], rescale=True)[0]


@pytest.mark.parametrize('head_class', [KMaXFusionHead, MaXFusionHead])
def test_fusion_head__strips_do_not_change_anything(head_class, monkeypatch):
    """Not even a bit of a score."""
    head = head_class(NUM_THINGS, NUM_CLASSES - NUM_THINGS, test_cfg=dict(instance_on=True, semantic_on=True))
    class_logits, mask_logits = _logits(0)
    found = _predict(head, class_logits, mask_logits)
    monkeypatch.setitem(mask_rows.STRIP_ELEMENTS, 'cpu', 10**9)
    expected = _predict(head, class_logits, mask_logits)
    assert len(expected['pan_results'].segments_info) > 1
    assert found['pan_results'].segments_info == expected['pan_results'].segments_info
    for task in ('pan_results', 'sem_results'):
        assert torch.equal(found[task].sem_seg, expected[task].sem_seg)
    for field in ('masks', 'scores', 'labels', 'bboxes'):
        assert torch.equal(found['ins_results'][field], expected['ins_results'][field])


@pytest.mark.parametrize('head_class', [KMaXFusionHead, MaXFusionHead])
@pytest.mark.parametrize('task', ['panoptic_on', 'semantic_on'])
def test_fusion_head__memory(head_class, task, monkeypatch):
    """Masks of all slots at full size would need 10 MB."""
    monkeypatch.setitem(mask_rows.RESIZED_ELEMENTS, 'cpu', 2**16)
    num_slots, (height, width) = 100, (161, 161)
    test_cfg = dict(dict(panoptic_on=False, semantic_on=False), **{task: True})
    head = head_class(NUM_THINGS, NUM_CLASSES - NUM_THINGS, test_cfg=test_cfg)
    class_logits, mask_logits = _logits(0, num_slots=num_slots)
    sample = DetDataSample(
        metainfo=dict(batch_input_shape=(height, width), img_shape=(height, width), ori_shape=(170, 150)))
    with TensorMemory() as memory:
        head.predict(class_logits[None], mask_logits[None], [sample], rescale=True)
    assert memory.peak < 0.5 * 4 * num_slots * height * width


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('in_masks', [False, True])
def test_fusion_head__logits_that_are_not_finite(value, in_masks):
    head = KMaXFusionHead(NUM_THINGS, NUM_CLASSES - NUM_THINGS)
    logits = [torch.stack(parts) for parts in zip(_logits(0), _logits(1), _logits(2))]
    logits[in_masks][1, 3, 4] = value
    samples = [
        DetDataSample(
            metainfo=dict(
                img_path=f'{name}.jpg', batch_input_shape=(65, 97), img_shape=(65, 97), ori_shape=(65, 97)))
        for name in 'abc'
    ]
    with pytest.raises(FloatingPointError, match=r"finite class and mask logits, .* for \['b.jpg'\]$"):
        head.predict(*logits, samples)
    logits[in_masks][1, 3, 4] = 0
    assert len(head.predict(*logits, samples)) == 3
