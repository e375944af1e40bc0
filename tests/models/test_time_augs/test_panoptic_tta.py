import copy
import weakref

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from remax_mm.analysis.training_overhead import TensorMemory
from remax_mm.models.heads import mask_rows
from remax_mm.models.heads.mask_rows import MaskRows, SoftmaxRows, restored_rows
from remax_mm.models.test_time_augs import SlotProbabilities, SlotRows, add_view, match_slots, scaled_canvas
from tests.color_model import (CAT, CAT_2, CAT_3, DOG, GRASS, NUM_CLASSES, SKY, as_input,
                               assert_same_segments, away_from_borders, color_detector, paint, truth)
from tests.random_statistics import randomize_norms
from tests.tiny_model import detector_config

S = slice


@pytest.fixture(autouse=True)
def _mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def _tta(detector):
    return MODELS.build(dict(type='PanopticTTAModel', module=detector)).eval()


def _views(image, sides=(65, ), flips=(False, True), direction='horizontal', **resize):
    """A batch of one image as from a data loader, with every flip at every scale."""
    transforms = [[dict(type='Resize', scale=(side, side), keep_ratio=True, **resize) for side in sides],
                  [dict(type='RandomFlip', prob=float(flip), direction=direction) for flip in flips],
                  [dict(type='PackPanopticInputs')]]
    data = Compose([dict(type='mmdet.LoadImageFromNDArray'),
                    dict(type='TestTimeAug', transforms=transforms)])(
                        dict(img=image, img_id=0))
    return {key: [[view] for view in value] for key, value in data.items()}


def _panoptic(model, batch):
    with torch.no_grad():
        result, = model.test_step(copy.deepcopy(batch))
    return result


def test_match_slots__permuted_slots():
    classes = torch.tensor([[0.9, 0.0, 0.1], [0.0, 0.8, 0.2], [0.1, 0.1, 0.8]])
    masks = torch.tensor([[0.8, 0.7, 0.1, 0.0], [0.1, 0.2, 0.8, 0.1], [0.1, 0.1, 0.1, 0.9]]).view(3, 2, 2)
    mean, order = SlotProbabilities(classes, masks), [2, 0, 1]
    view = SlotRows(classes[order], MaskRows(masks[order]))
    assert match_slots(mean, view).tolist() == [order.index(slot) for slot in range(3)]


def test_match_slots__equal_masks_are_matched_by_class():
    masks = torch.full((2, 2, 2), 0.5)
    mean = SlotProbabilities(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), masks)
    view = SlotRows(torch.tensor([[0.2, 0.8], [0.7, 0.3]]), MaskRows(masks))
    assert match_slots(mean, view).tolist() == [1, 0]


def test_match_slots__largest_total_similarity():
    classes = torch.ones(2, 1)
    mean = SlotProbabilities(classes, torch.tensor([[1.0, 0.0], [0.5, 0.0]]).view(2, 1, 2))
    view = SlotRows(classes, MaskRows(torch.tensor([[1.0, 0.1], [1.0, 0.3]]).view(2, 1, 2)))
    # 2 pq / (pp + qq): (0, 0) 2 / 2.01; (0, 1) 2 / 2.09; (1, 0) 1 / 1.26; (1, 1) 1 / 1.34
    assert 2 / 2.01 > max(2 / 2.09, 1 / 1.26, 1 / 1.34)
    assert 2 / 2.01 + 1 / 1.34 < 2 / 2.09 + 1 / 1.26
    assert match_slots(mean, view).tolist() == [1, 0]


def test_add_view__equals_the_mean_of_reordered_views():
    generator = torch.Generator().manual_seed(3)
    # Distinct slots whose matching is certain despite noise, in another order in each view.
    views, orders = [], []
    for _ in range(4):
        classes = (8 * torch.eye(5)[:, :4] + torch.randn(5, 4, generator=generator)).softmax(1)
        masks = (8 * torch.eye(5).view(5, 5, 1) + torch.randn(5, 5, 6, generator=generator)).softmax(0)
        orders.append(torch.randperm(5, generator=generator))
        views.append(SlotProbabilities(classes[orders[-1]], masks[orders[-1]]))
    mean = SlotProbabilities(*(part.clone() for part in views[0]))
    for number, view in enumerate(views[1:], start=2):
        add_view(mean, SlotRows(view.classes, MaskRows(view.masks)), number)

    # The joint probability of slot, class and pixel, in the order of the first view
    joint = torch.stack([
        torch.einsum('nk,nhw->nkhw', *view)[order.argsort()][orders[0]] for view, order in zip(views, orders)
    ]).mean(0)
    torch.testing.assert_close(mean.masks, joint.sum(1))
    torch.testing.assert_close(mean.classes, joint.sum((2, 3)) / joint.sum((1, 2, 3))[:, None])
    torch.testing.assert_close(mean.masks.sum(0), torch.ones(5, 6))
    torch.testing.assert_close(mean.classes.sum(1), torch.ones(5))


def test_add_view__slots_without_pixels():
    """They do not change the class of a slot with pixels. Slots without pixels are averaged equally."""
    classes = [torch.tensor([[1.0, 0.0], [0.8, 0.2]]), torch.tensor([[0.6, 0.4], [0.2, 0.8]])]
    masks = [torch.tensor([1.0, 0.0]).view(2, 1, 1), torch.tensor([1.0, 0.0]).view(2, 1, 1)]
    mean = SlotProbabilities(classes[0], masks[0])
    add_view(mean, SlotRows(classes[1], MaskRows(masks[1])), 2)
    torch.testing.assert_close(mean.classes, torch.tensor([[0.8, 0.2], [0.5, 0.5]]))

    empty = SlotRows(torch.tensor([[0.0, 1.0]]), MaskRows(torch.zeros(1, 2, 2)))
    mean = SlotProbabilities(torch.tensor([[0.9, 0.1]]), torch.ones(1, 2, 2))
    add_view(mean, empty, 2)
    torch.testing.assert_close(mean.classes, torch.tensor([[0.9, 0.1]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    'pad_size, plain, view, expected',
    [
        ((641, 641), (480, 641), (480, 641), (641, 641)),
        ((641, 641), (480, 641), (360, 481), (481, 481)),
        ((641, 641), (480, 641), (600, 801), (801, 801)),
        ((1281, 1281), (1281, 960), (641, 480), (641, 641)),
        ((1025, 2049), (1024, 2048), (512, 1024), (513, 1025)),
        ((1025, 2049), (1024, 2048), (1280, 2560), (1281, 2561)),
        # The padding is scaled with the image.
        ((641, 641), (200, 300), (400, 600), (1281, 1281)),
        # Rounded to the nearest size, the canvas would be smaller than the image.
        ((65, 65), (65, 65), (80, 80), (97, 97)),
    ])
def test_scaled_canvas__scales_the_padded_size(pad_size, plain, view, expected):
    assert scaled_canvas(pad_size, plain, view) == expected


def test_panoptic_tta__single_view_equals_the_plain_prediction():
    """Exactly, for all kinds of results."""
    detector = randomize_norms(MODELS.build(detector_config())).eval()
    batch = _views(np.random.RandomState(0).randint(0, 256, (50, 70, 3), np.uint8), flips=(False, ))
    plain = _panoptic(detector, {key: views[0] for key, views in batch.items()})
    result = _panoptic(_tta(detector), batch)
    assert torch.equal(result.pred_panoptic_seg.sem_seg, plain.pred_panoptic_seg.sem_seg)
    assert result.pred_panoptic_seg.segments_info == plain.pred_panoptic_seg.segments_info
    for field in ('masks', 'scores', 'labels', 'bboxes'):
        assert torch.equal(result.pred_instances[field], plain.pred_instances[field])
    assert torch.equal(result.pred_sem_seg.sem_seg, plain.pred_sem_seg.sem_seg)


def test_panoptic_tta__equal_views_equal_the_plain_prediction():
    """The mean of a prediction and itself is this prediction."""
    detector = randomize_norms(MODELS.build(detector_config())).eval()
    batch = _views(np.random.RandomState(0).randint(0, 256, (50, 70, 3), np.uint8), flips=(False, False))
    plain = _panoptic(detector, {key: views[0] for key, views in batch.items()})
    result = _panoptic(_tta(detector), batch)
    assert torch.equal(result.pred_panoptic_seg.sem_seg, plain.pred_panoptic_seg.sem_seg)
    for info, expected in zip(result.pred_panoptic_seg.segments_info, plain.pred_panoptic_seg.segments_info):
        assert info == {**expected, 'score': pytest.approx(expected['score'], abs=1e-5)}
    assert torch.equal(result.pred_sem_seg.sem_seg, plain.pred_sem_seg.sem_seg)
    # The order follows the class scores, and rounding may swap two that are nearly equal.
    scores = (results.pred_instances.scores.sort().values for results in (result, plain))
    torch.testing.assert_close(*scores)


PAINTING = paint((48, 60), (SKY, S(0, 20), S(None)), (GRASS, S(20, 40), S(None)), (CAT, S(10, 30), S(5, 20)),
                 (CAT_2, S(10, 30), S(20, 26)), (CAT_3, S(32, 38), S(50, 58)), (DOG, S(4, 16), S(40, 56)))


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
@pytest.mark.parametrize('flips', [(False, True), (True, ), (True, False)])
def test_panoptic_tta__flips_with_an_equivariant_model(direction, flips):
    """A model that segments by color has the same result in every view, for any padding."""
    model = _tta(color_detector())
    batch = _views(PAINTING, sides=(60, ), flips=flips, direction=direction)
    result = _panoptic(model, batch)
    panoptic_map = result.pred_panoptic_seg.sem_seg[0].numpy()
    assert_same_segments(panoptic_map, truth(PAINTING))
    assert set(np.unique(panoptic_map)) - {NUM_CLASSES} == {
        info['id']
        for info in result.pred_panoptic_seg.segments_info
    }


def test_panoptic_tta__scales_with_an_equivariant_model():
    result = _panoptic(_tta(color_detector()), _views(PAINTING, sides=(60, 30, 90, 120)))
    inside = away_from_borders(PAINTING, 2)  # resizing blurs the borders
    assert inside.mean() > 0.4
    assert_same_segments(result.pred_panoptic_seg.sem_seg[0].numpy(), truth(PAINTING), inside)


def test_panoptic_tta__batch_of_different_images():
    paintings = [PAINTING, paint((48, 60), (GRASS, S(None), S(None)), (DOG, S(10, 40), S(10, 30)))]
    batches = [_views(painting, sides=(60, )) for painting in paintings]
    batch = {key: [sum(images, []) for images in zip(*(one[key] for one in batches))] for key in batches[0]}
    results = _tta(color_detector()).test_step(batch)
    for result, painting in zip(results, paintings):
        assert_same_segments(result.pred_panoptic_seg.sem_seg[0].numpy(), truth(painting))


def test_panoptic_tta__majority_of_views():
    """One of two views detects CAT: SKY has a probability of 1/2 at CAT's pixels as well and takes them.

    Two of three views detect it: SKY has 1/3, below the threshold of 0.4, and CAT has 2/3.
    """
    model = _tta(color_detector(pad_size=None))
    blank = paint((33, 33), (SKY, S(None), S(None)))
    with_cat = paint((33, 33), (SKY, S(None), S(None)), (CAT, S(5, 20), S(5, 20)))

    # Slots without pixels predict void, as in a trained model.
    predict = model.module.panoptic_head.predict

    def predict_void_without_pixels(features, samples):
        classes, masks = predict(features, samples)
        without_pixels = masks.softmax(1).flatten(2).amax(2) < 0.5
        classes = classes.clone()
        classes[without_pixels] = torch.tensor([0., 0., 0., 0., 10.])
        return classes, masks

    model.module.panoptic_head.predict = predict_void_without_pixels

    def scores(*views):
        batch = dict(inputs=[], data_samples=[])
        for view in views:
            batch['inputs'].append([as_input(view)])
            batch['data_samples'].append(
                [DetDataSample(metainfo=dict(img_shape=(33, 33), ori_shape=(33, 33)))])
        panoptic = _panoptic(model, batch).pred_panoptic_seg
        return {info['label']: info['score'] for info in panoptic.segments_info}

    assert set(scores(blank, with_cat)) == set(scores(with_cat, blank)) == {SKY.label}
    assert set(scores(blank, with_cat, blank)) == {SKY.label}
    for views in ((blank, with_cat, with_cat), (with_cat, blank, with_cat), (with_cat, with_cat, blank)):
        found = scores(*views)
        # The class probability is exp(10) / (exp(10) + 4), the mask probability is 2/3.
        assert found[CAT.label] == pytest.approx(2 / 3 * np.exp(10) / (np.exp(10) + 4), abs=1e-4)


def test_panoptic_tta__padding_of_each_view():
    model = _tta(color_detector())
    shapes = []
    model.module.backbone.register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[0].shape))
    _panoptic(model, _views(PAINTING, sides=(65, 33, 97)))
    assert [tuple(shape) for shape in shapes] == [(1, 3, side, side) for side in (65, 65, 33, 33, 97, 97)]
    assert model.module.data_preprocessor.pad_size == (65, 65)


def test_panoptic_tta__masks_of_the_mean_in_memory():
    """Nothing before the first view, only the mean before each of the others."""
    model = _tta(color_detector())
    references, counts = [], []
    whole, softmax = MaskRows.whole, torch.Tensor.softmax

    def remember_result_of(function):

        def remember(*args, **kwargs):
            result = function(*args, **kwargs)
            if result.dim() == 3 and result.shape[-2:] == PAINTING.shape[:2]:
                references.append(weakref.ref(result))
            return result

        return remember

    def count_masks(module, inputs):
        counts.append(sum(reference() is not None for reference in references))

    model.module.backbone.register_forward_pre_hook(count_masks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskRows, 'whole', remember_result_of(whole))
        patch.setattr(torch.Tensor, 'softmax', remember_result_of(softmax))
        _panoptic(model, _views(PAINTING, sides=(60, 30, 90), flips=(False, )))
    assert counts == [0, 1, 1]
    assert len(references) > 3


def test_add_view__memory(monkeypatch):
    """The masks of the view would need as much as those of the mean."""
    monkeypatch.setitem(mask_rows.STRIP_ELEMENTS, 'cpu', 1)
    size = (193, 161)
    mean = SlotProbabilities(torch.full((40, 3), 1 / 3), torch.full((40, *size), 1 / 40))
    logits = torch.randn(40, 49, 41)
    with TensorMemory() as memory:
        add_view(mean, SlotRows(mean.classes, SoftmaxRows(restored_rows(logits, size, size, None))), 2)
    assert memory.peak < 0.6 * mean.masks.nbytes
    torch.testing.assert_close(mean.masks.sum(0), torch.ones(size))


def test_panoptic_tta__strips_do_not_change_the_map(monkeypatch):
    detector = randomize_norms(MODELS.build(detector_config())).eval()
    image = np.random.RandomState(0).randint(0, 256, (50, 70, 3), np.uint8)
    batch = _views(image, direction='vertical')
    expected = _panoptic(_tta(detector), batch).pred_panoptic_seg
    monkeypatch.setitem(mask_rows.STRIP_ELEMENTS, 'cpu', 1)
    found = _panoptic(_tta(detector), batch).pred_panoptic_seg
    assert torch.equal(found.sem_seg, expected.sem_seg)
    assert len(found.segments_info) > 0
    for info, expected_info in zip(found.segments_info, expected.segments_info):
        assert info == {**expected_info, 'score': pytest.approx(expected_info['score'], rel=1e-5)}


def test_panoptic_tta__logits_that_are_not_finite():
    model = _tta(color_detector())
    predict = model.module.panoptic_head.predict
    model.module.panoptic_head.predict = lambda *args: [part * float('nan') for part in predict(*args)]
    batch = _views(PAINTING, sides=(60, ))
    for views in batch['data_samples']:
        views[0].set_metainfo(dict(img_path='first.jpg'))
    with pytest.raises(FloatingPointError, match="first.jpg"):
        _panoptic(model, batch)


def test_panoptic_tta__other_fusion_head():
    detector = color_detector()
    detector['panoptic_fusion_head']['type'] = 'MaskFormerFusionHead'
    with pytest.raises(TypeError, match='PanopticFusionHead.*MaskFormerFusionHead'):
        _tta(detector)


def test_panoptic_tta__returns_the_data_sample_of_the_first_view():
    batch = _views(PAINTING, sides=(60, ))
    batch['data_samples'][0][0].set_metainfo(dict(img_path='first.jpg'))
    result = _panoptic(_tta(color_detector()), batch)
    assert result.img_path == 'first.jpg' and not result.flip
