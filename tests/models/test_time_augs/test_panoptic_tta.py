import copy
import weakref

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from remax_mm.models.test_time_augs import SlotProbabilities, add_view, match_slots, scaled_canvas
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
    """A batch of one image as a data loader yields it, every flip at every scale."""
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


def test_match_slots__worked_by_hand():
    classes = torch.tensor([[0.9, 0.0, 0.1], [0.0, 0.8, 0.2], [0.1, 0.1, 0.8]])
    masks = torch.tensor([[0.8, 0.7, 0.1, 0.0], [0.1, 0.2, 0.8, 0.1], [0.1, 0.1, 0.1, 0.9]]).view(3, 2, 2)
    mean, order = SlotProbabilities(classes, masks), [2, 0, 1]
    view = SlotProbabilities(classes[order], masks[order])
    assert match_slots(mean, view).tolist() == [order.index(slot) for slot in range(3)]


def test_match_slots__class_decides_between_equal_masks():
    masks = torch.full((2, 2, 2), 0.5)
    mean = SlotProbabilities(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), masks)
    view = SlotProbabilities(torch.tensor([[0.2, 0.8], [0.7, 0.3]]), masks)
    assert match_slots(mean, view).tolist() == [1, 0]


def test_match_slots__largest_total_not_largest_pair():
    classes = torch.ones(2, 1)
    mean = SlotProbabilities(classes, torch.tensor([[1.0, 0.0], [0.5, 0.0]]).view(2, 1, 2))
    view = SlotProbabilities(classes, torch.tensor([[1.0, 0.1], [1.0, 0.3]]).view(2, 1, 2))
    # 2 pq / (pp + qq): (0, 0) 2 / 2.01; (0, 1) 2 / 2.09; (1, 0) 1 / 1.26; (1, 1) 1 / 1.34
    assert 2 / 2.01 > max(2 / 2.09, 1 / 1.26, 1 / 1.34)
    assert 2 / 2.01 + 1 / 1.34 < 2 / 2.09 + 1 / 1.26
    assert match_slots(mean, view).tolist() == [1, 0]


def test_add_view__is_the_mean_of_reordered_views():
    generator = torch.Generator().manual_seed(3)
    # Sharp slots that noise does not confuse, in another order in each view.
    views, orders = [], []
    for _ in range(4):
        classes = (8 * torch.eye(5)[:, :4] + torch.randn(5, 4, generator=generator)).softmax(1)
        masks = (8 * torch.eye(5).view(5, 5, 1) + torch.randn(5, 5, 6, generator=generator)).softmax(0)
        orders.append(torch.randperm(5, generator=generator))
        views.append(SlotProbabilities(classes[orders[-1]], masks[orders[-1]]))
    mean = SlotProbabilities(*(part.clone() for part in views[0]))
    for number, view in enumerate(views[1:], start=2):
        add_view(mean, view, number)

    # The joint probability of slot, class and pixel, in the order of the first view
    joint = torch.stack([
        torch.einsum('nk,nhw->nkhw', *view)[order.argsort()][orders[0]] for view, order in zip(views, orders)
    ]).mean(0)
    torch.testing.assert_close(mean.masks, joint.sum(1))
    torch.testing.assert_close(mean.classes, joint.sum((2, 3)) / joint.sum((1, 2, 3))[:, None])
    torch.testing.assert_close(mean.masks.sum(0), torch.ones(5, 6))
    torch.testing.assert_close(mean.classes.sum(1), torch.ones(5))


def test_add_view__slots_without_pixels():
    """They have no say on the class of a slot with pixels; among themselves all views count alike."""
    classes = [torch.tensor([[1.0, 0.0], [0.8, 0.2]]), torch.tensor([[0.6, 0.4], [0.2, 0.8]])]
    masks = [torch.tensor([1.0, 0.0]).view(2, 1, 1), torch.tensor([1.0, 0.0]).view(2, 1, 1)]
    mean, view = (SlotProbabilities(*parts) for parts in zip(classes, masks))
    add_view(mean, view, 2)
    torch.testing.assert_close(mean.classes, torch.tensor([[0.8, 0.2], [0.5, 0.5]]))

    empty = SlotProbabilities(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2, 2))
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
        # An image that does not fill its canvas does not fill it at twice the size either.
        ((641, 641), (200, 300), (400, 600), (1281, 1281)),
        # Rounded down, the canvas would be smaller than the image.
        ((65, 65), (65, 65), (80, 80), (97, 97)),
    ])
def test_scaled_canvas(pad_size, plain, view, expected):
    assert scaled_canvas(pad_size, plain, view) == expected


def test_panoptic_tta__single_view_is_the_plain_prediction():
    """Bit for bit, at the scale of the crop, with all results."""
    detector = randomize_norms(MODELS.build(detector_config())).eval()
    batch = _views(np.random.RandomState(0).randint(0, 256, (50, 70, 3), np.uint8), flips=(False, ))
    plain = _panoptic(detector, {key: views[0] for key, views in batch.items()})
    result = _panoptic(_tta(detector), batch)
    assert torch.equal(result.pred_panoptic_seg.sem_seg, plain.pred_panoptic_seg.sem_seg)
    assert result.pred_panoptic_seg.segments_info == plain.pred_panoptic_seg.segments_info
    for field in ('masks', 'scores', 'labels', 'bboxes'):
        assert torch.equal(result.pred_instances[field], plain.pred_instances[field])
    assert torch.equal(result.pred_sem_seg.sem_seg, plain.pred_sem_seg.sem_seg)


def test_panoptic_tta__equal_views_change_nothing():
    """The general path: the mean of a prediction and itself is that prediction."""
    detector = randomize_norms(MODELS.build(detector_config())).eval()
    batch = _views(np.random.RandomState(0).randint(0, 256, (50, 70, 3), np.uint8), flips=(False, False))
    plain = _panoptic(detector, {key: views[0] for key, views in batch.items()})
    result = _panoptic(_tta(detector), batch)
    assert torch.equal(result.pred_panoptic_seg.sem_seg, plain.pred_panoptic_seg.sem_seg)
    for info, expected in zip(result.pred_panoptic_seg.segments_info, plain.pred_panoptic_seg.segments_info):
        assert info == {**expected, 'score': pytest.approx(expected['score'], abs=1e-5)}
    assert torch.equal(result.pred_sem_seg.sem_seg, plain.pred_sem_seg.sem_seg)
    torch.testing.assert_close(result.pred_instances.scores, plain.pred_instances.scores)


PAINTING = paint((48, 60), (SKY, S(0, 20), S(None)), (GRASS, S(20, 40), S(None)), (CAT, S(10, 30), S(5, 20)),
                 (CAT_2, S(10, 30), S(20, 26)), (CAT_3, S(32, 38), S(50, 58)), (DOG, S(4, 16), S(40, 56)))


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
@pytest.mark.parametrize('flips', [(False, True), (True, ), (True, False)])
def test_panoptic_tta__flips_of_an_equivariant_model(direction, flips):
    """Slots that know their color see the same in every view, in any order and with padding anywhere."""
    model = _tta(color_detector())
    batch = _views(PAINTING, sides=(60, ), flips=flips, direction=direction)
    result = _panoptic(model, batch)
    panoptic_map = result.pred_panoptic_seg.sem_seg[0].numpy()
    assert_same_segments(panoptic_map, truth(PAINTING))
    assert set(np.unique(panoptic_map)) - {NUM_CLASSES} == {
        info['id']
        for info in result.pred_panoptic_seg.segments_info
    }


def test_panoptic_tta__scales_of_an_equivariant_model():
    result = _panoptic(_tta(color_detector()), _views(PAINTING, sides=(60, 30, 90, 120)))
    inside = away_from_borders(PAINTING, 2)  # which a resized image blurs
    assert inside.mean() > 0.4
    assert_same_segments(result.pred_panoptic_seg.sem_seg[0].numpy(), truth(PAINTING), inside)


def test_panoptic_tta__every_image_of_a_batch_has_its_own():
    paintings = [PAINTING, paint((48, 60), (GRASS, S(None), S(None)), (DOG, S(10, 40), S(10, 30)))]
    batches = [_views(painting, sides=(60, )) for painting in paintings]
    batch = {key: [sum(images, []) for images in zip(*(one[key] for one in batches))] for key in batches[0]}
    results = _tta(color_detector()).test_step(batch)
    for result, painting in zip(results, paintings):
        assert_same_segments(result.pred_panoptic_seg.sem_seg[0].numpy(), truth(painting))


def test_panoptic_tta__a_majority_of_views_decides():
    """Worked by hand: with 1 of 2 views, SKY has half of CAT's pixels as well, and comes first; with 2 of 3,
    it has a third of them, below the threshold of 0.4, and CAT two thirds."""
    model = _tta(color_detector(pad_size=None))
    blank = paint((33, 33), (SKY, S(None), S(None)))
    seen = paint((33, 33), (SKY, S(None), S(None)), (CAT, S(5, 20), S(5, 20)))

    # Slots that have no pixels say void, as they do in a trained model.
    predict = model.module.panoptic_head.predict

    def predict_void_where_unseen(features, samples):
        classes, masks = predict(features, samples)
        unseen = masks.softmax(1).flatten(2).amax(2) < 0.5
        classes = classes.clone()
        classes[unseen] = torch.tensor([0., 0., 0., 0., 10.])
        return classes, masks

    model.module.panoptic_head.predict = predict_void_where_unseen

    def scores(*views):
        batch = dict(inputs=[], data_samples=[])
        for view in views:
            batch['inputs'].append([as_input(view)])
            batch['data_samples'].append(
                [DetDataSample(metainfo=dict(img_shape=(33, 33), ori_shape=(33, 33)))])
        panoptic = _panoptic(model, batch).pred_panoptic_seg
        return {info['label']: info['score'] for info in panoptic.segments_info}

    assert set(scores(blank, seen)) == set(scores(seen, blank)) == {SKY.label}
    assert set(scores(blank, seen, blank)) == {SKY.label}
    for views in ((blank, seen, seen), (seen, blank, seen), (seen, seen, blank)):
        found = scores(*views)
        # exp(10) to 4 of 1 for the class, two thirds for the mask
        assert found[CAT.label] == pytest.approx(2 / 3 * np.exp(10) / (np.exp(10) + 4), abs=1e-4)


def test_panoptic_tta__padding_of_each_view():
    model = _tta(color_detector())
    shapes = []
    model.module.backbone.register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[0].shape))
    _panoptic(model, _views(PAINTING, sides=(65, 33, 97)))
    assert [tuple(shape) for shape in shapes] == [(1, 3, side, side) for side in (65, 65, 33, 33, 97, 97)]
    assert model.module.data_preprocessor.pad_size == (65, 65)


def test_panoptic_tta__two_views_are_alive_at_most():
    model = _tta(color_detector())
    alive, counts = [], []
    softmax = torch.Tensor.softmax

    def watch(module, inputs):
        counts.append(sum(reference() is not None for reference in alive))

    def remember(tensor, *args, **kwargs):
        result = softmax(tensor, *args, **kwargs)
        if result.dim() == 3 and result.shape[-2:] == PAINTING.shape[:2]:
            alive.append(weakref.ref(result))
        return result

    model.module.backbone.register_forward_pre_hook(watch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, 'softmax', remember)
        _panoptic(model, _views(PAINTING, sides=(60, 30, 90), flips=(False, )))
    # Before the first view nothing, before each other one the mean alone.
    assert counts == [0, 1, 1]


def test_panoptic_tta__needs_slots_that_compete():
    detector = color_detector()
    detector['panoptic_fusion_head']['type'] = 'MaskFormerFusionHead'
    with pytest.raises(TypeError, match='PanopticFusionHead.*MaskFormerFusionHead'):
        _tta(detector)


def test_panoptic_tta__keeps_the_ground_truth_and_names_of_the_first_view():
    batch = _views(PAINTING, sides=(60, ))
    batch['data_samples'][0][0].set_metainfo(dict(img_path='first.jpg'))
    result = _panoptic(_tta(color_detector()), batch)
    assert result.img_path == 'first.jpg' and not result.flip
