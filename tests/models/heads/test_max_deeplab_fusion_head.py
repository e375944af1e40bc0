"""The pixel-wise fusion of MaX-DeepLab."""
import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample

from remax_mm.models.heads.max_deeplab_fusion_head import MaXFusionHead, fuse_panoptic_pixelwise
from tests.models.heads.drawn_masks import LOGIT, draw, drawn_classes


def _owners(rows, num_slots, logit=LOGIT):
    """Mask logits of slots a, b, c, ...: ``logit`` at the letter of a slot, 0 elsewhere."""
    owner = torch.tensor([['abcdefgh'.index(letter) for letter in row] for row in rows])
    return logit * F.one_hot(owner, num_slots).permute(2, 0, 1).float()


def _classes(*labels):
    return drawn_classes(*labels, void_slot=False)


def _reference_fusion(class_logits, mask_logits, num_things, options):
    """The fusion of MaX-DeepLab in loops: (class, slot of a thing) of each pixel, or None."""
    classes = class_logits.softmax(-1)[:, :-1].tolist()
    accepted = [slot for slot, row in enumerate(classes) if max(row) >= options['class_threshold']]
    height, width = mask_logits.shape[1:]
    painted = [[None] * width for _ in range(height)]
    for row in range(height):
        for column in range(width):
            logits = mask_logits[:, row, column].tolist()
            slot = logits.index(max(logits))
            if slot in accepted:
                share = mask_logits[accepted, row, column].softmax(0)[accepted.index(slot)]
                if share > options['pixel_threshold']:
                    category = classes[slot].index(max(classes[slot]))
                    painted[row][column] = (category, slot if category < num_things else None)

    pixels = [pixel for row in painted for pixel in row]
    for row in range(height):
        for column in range(width):
            pixel = painted[row][column]
            if pixel is not None:
                limit = options['thing_area' if pixel[0] < num_things else 'stuff_area']
                if pixels.count(pixel) < limit:
                    painted[row][column] = None
    return painted


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('options', [
    dict(),
    dict(class_threshold=0.2),
    dict(pixel_threshold=0.6),
    dict(thing_area=4, stuff_area=7),
])
def test_fuse_panoptic_pixelwise__loops(seed, options):
    options = {**dict(class_threshold=0.4, pixel_threshold=0.4, thing_area=0, stuff_area=0), **options}
    generator = torch.Generator().manual_seed(seed)
    class_logits = 2 * torch.randn(9, 5, generator=generator)
    coarse = 5 * torch.randn(1, 9, 3, 3, generator=generator)
    mask_logits = F.interpolate(coarse, (7, 9), mode='bilinear', align_corners=True)[0]

    segment_map, segments = fuse_panoptic_pixelwise(class_logits, mask_logits, num_things=2, **options)
    painted = _reference_fusion(class_logits, mask_logits, 2, options)
    found = {}
    for row in range(7):
        for column in range(9):
            value, expected = segment_map[row, column].item(), painted[row][column]
            assert (value == 0) == (expected is None)
            if value:
                assert segments[value - 1].category == expected[0]
                assert segments[value - 1].is_thing == (expected[0] < 2)
                assert found.setdefault(value, expected) == expected  # one segment, one slot or stuff class
    assert len(found) == len(segments) == len(set(found.values()))
    assert [s.id for s in segments] == list(range(1, len(segments) + 1))


def test_fuse_panoptic_pixelwise__example_of_deeplab2():
    # max_deeplab_test.py of google-research/deeplab2; its id is 10 * class id + rank of the slot.
    rows = ['aaaaa', 'abbaa', 'cbbcc', 'cbbcc', 'ccccc']
    class_logits = -10 * torch.ones(3, 3)
    class_logits[[0, 1, 2], [0, 0, 1]] = 10
    segment_map, segments = fuse_panoptic_pixelwise(
        class_logits,
        _owners(rows, 3) - 10,
        num_things=2,
        class_threshold=0.7,
        pixel_threshold=0.4,
        thing_area=3,
        stuff_area=3)
    assert draw(segment_map) == rows
    assert [(s.id, s.category) for s in segments] == [(1, 0), (2, 0), (3, 1)]


def test_fuse_panoptic_pixelwise__area_limits_of_deeplab2():
    # _merge_mask_id_and_semantic_maps: mask ids a to f of the classes stuff 0, stuff 1, thing 2, thing 2,
    # thing 2, thing 3 (here 2, 3, 0, 0, 0, 1). One pixel of a and one of e are not confident, so that b (two
    # pixels of stuff, limit 3) and e (one of a thing, limit 2) are too small.
    rows = ['aaaa', 'abba', 'ccdd', 'eeff']
    mask_logits = _owners(rows, 6)
    for row, column in ((0, 3), (3, 1)):
        mask_logits[:, row, column] = 0
    segment_map, segments = fuse_panoptic_pixelwise(
        _classes(2, 3, 0, 0, 0, 1), mask_logits, num_things=2, thing_area=2, stuff_area=3)
    assert draw(segment_map) == ['aaa.', 'a..a', 'bbcc', '..dd']
    assert [(s.category, s.is_thing) for s in segments] == [(2, False), (0, True), (0, True), (1, True)]


def test_fuse_panoptic_pixelwise__nothing_found():
    for class_logits in (_classes(4, 4, 4), torch.zeros(3, 5)):
        segment_map, segments = fuse_panoptic_pixelwise(
            class_logits, _owners(['aab', 'bbc'], 3), num_things=2)
        assert segment_map.shape == (2, 3) and segment_map.dtype == torch.int32
        assert not segment_map.any() and segments == []


def test_fuse_panoptic_pixelwise__pixels_of_rejected_slots_are_void():
    # Slot b has no class. Its pixels do not go to slot a, which has all of their probability without b.
    segment_map, segments = fuse_panoptic_pixelwise(
        _classes(0, 4), _owners(['aabb', 'abbb'], 2, logit=1.0), num_things=2)
    assert draw(segment_map) == ['aa..', 'a...']
    assert len(segments) == 1


def test_fuse_panoptic_pixelwise__softmax_over_accepted_slots_only():
    # Slots 0 and 1 are accepted and share the probability almost equally. The others are rejected, and would
    # take more than half of it.
    mask_logits = torch.tensor([0., -0.05, -0.1, -0.1, -0.1]).view(5, 1, 1)
    class_logits = _classes(0, 1, 4, 4, 4)
    segment_map, segments = fuse_panoptic_pixelwise(class_logits, mask_logits, num_things=2)
    assert segment_map.tolist() == [[1]] and segments[0].category == 0  # 0.51 > 0.4, 0.22 of all five
    share = torch.sigmoid(torch.tensor(.05)).item()
    assert segments[0].score == pytest.approx(share, rel=1e-5)


def test_fuse_panoptic_pixelwise__thresholds():
    # A class probability of exactly the threshold is enough, a pixel of exactly the threshold is not.
    mask_logits, class_logits = torch.zeros(2, 1, 2), torch.zeros(2, 2)
    half = dict(num_things=1, class_threshold=0.5, pixel_threshold=0.49)
    assert len(fuse_panoptic_pixelwise(class_logits, mask_logits, **half)[1]) == 1
    assert fuse_panoptic_pixelwise(class_logits, mask_logits, **{**half, 'class_threshold': 0.51})[1] == []
    assert fuse_panoptic_pixelwise(class_logits, mask_logits, **{**half, 'pixel_threshold': 0.5})[1] == []


def test_fuse_panoptic_pixelwise__stuff_of_one_class_is_one_segment():
    segment_map, segments = fuse_panoptic_pixelwise(
        _classes(2, 0, 2, 3), _owners(['aabb', 'cbbb', 'cdda'], 4), num_things=2)
    assert draw(segment_map) == ['aabb', 'abbb', 'acca']
    assert [s[:3] for s in segments] == [(1, 2, False), (2, 0, True), (3, 3, False)]


def test_fuse_panoptic_pixelwise__score_is_the_mean_of_class_times_mask_probability():
    # Slot a has two pixels, of probability sigmoid(2) and sigmoid(1), and the class probability sigmoid(3).
    mask_logits = torch.tensor([[2., 1., 0.], [0., 0., LOGIT]])[:, None]
    class_logits = torch.tensor([[3., 0.], [2., 0.]])
    _, segments = fuse_panoptic_pixelwise(class_logits, mask_logits, num_things=1)
    two, one, three = torch.tensor([2., 1., 3.], dtype=torch.float64).sigmoid().tolist()
    assert segments[0].score == pytest.approx(three * (two + one) / 2)

    # As merged stuff, with a pixel of another slot.
    _, segments = fuse_panoptic_pixelwise(class_logits, mask_logits, num_things=0)
    assert len(segments) == 1
    assert segments[0].score == pytest.approx((three * (two + one) + two) / 3)


def test_max_fusion_head__passes_its_options_to_the_fusion():
    options = dict(class_threshold=0.3, pixel_threshold=0.35, thing_area=2, stuff_area=3)
    head = MODELS.build(
        dict(type='MaXFusionHead', num_things_classes=2, num_stuff_classes=2, test_cfg=dict(options)))
    class_logits, mask_logits = 2 * torch.randn(6, 5), 4 * torch.randn(6, 5, 7)
    result = head.panoptic_postprocess(class_logits, mask_logits)
    segment_map, segments = fuse_panoptic_pixelwise(class_logits, mask_logits, num_things=2, **options)
    assert len(segments) > 1
    values = [4] + [s.category + 1000 * s.id * s.is_thing for s in segments]
    assert torch.equal(result.sem_seg[0], torch.tensor(values, dtype=torch.int32)[segment_map.long()])
    assert [info['score'] for info in result.metainfo['segments_info']] == [s.score for s in segments]


def test_max_fusion_head__returns_all_three_results():
    head = MaXFusionHead(2, 2, test_cfg=dict(instance_on=True, semantic_on=True))
    sample = DetDataSample(metainfo=dict(batch_input_shape=(17, 33), img_shape=(15, 20), ori_shape=(30, 40)))
    result, = head.predict(3 * torch.randn(1, 6, 5), 3 * torch.randn(1, 6, 5, 9), [sample], rescale=True)
    assert set(result) == {'pan_results', 'ins_results', 'sem_results'}
    assert result['pan_results'].sem_seg.shape == (1, 30, 40)


def test_max_fusion_head__unknown_option():
    with pytest.raises(ValueError, match=r"but got \['overlap_threshold', 'thing_threshold'\]"):
        MaXFusionHead(2, 2, test_cfg=dict(thing_threshold=0.7, overlap_threshold=0.8, pixel_threshold=0.4))
