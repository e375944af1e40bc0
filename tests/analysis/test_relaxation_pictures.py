"""What the pictures of the relaxations show: the slots, factors and class targets of a training step."""
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData

from remax_mm.analysis.relaxation_pictures import (RelaxedOutput, choose_slots, draw_reclass,
                                                   draw_relaxations, draw_remask, record_relaxed_output)
from remax_mm.structures import MaskPrediction, SlotTargets
from tests.conftest import REPOSITORY
from tests.tiny_model import NUM_CLASSES, detector_config

CLASSES = ('cat', 'dog', 'sky')


@pytest.fixture(autouse=True)
def _mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture
def output() -> RelaxedOutput:
    """Slots 0 and 2 have a cat each, slot 1 has the sky, slot 3 has nothing; slot 2 is amplified most."""
    factors = torch.tensor([1.5, 2.0, 3.0, 9.0])
    owner = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 1, 1], [2, 2, 1, 4]])[None]
    mask_logits = torch.full((1, 4, 4, 4), 0.5)
    targets = torch.tensor([[1., .02, .05, 0.], [.01, 0., 1., 0.], [1., 0., 0., 0.], [0., 0., 0., 1.]])[None]
    prediction = MaskPrediction(
        class_logits=torch.zeros(1, 4, 4),
        mask_logits=mask_logits,
        pixel_feature=torch.zeros(1, 2, 4, 4),
        relaxed_mask_logits=mask_logits * factors[:, None, None])
    slot_targets = SlotTargets(
        owner=owner,
        area=torch.tensor([[4., 7., 4., 0.]]),
        class_targets=targets,
        class_weights=torch.ones(1, 4),
        mask_weights=torch.ones(1, 4),
        sem_seg=torch.zeros_like(owner),
        inverse_area=torch.ones(1, 4, 4))
    return RelaxedOutput(prediction, slot_targets, 0, np.zeros((16, 16, 3), np.uint8), CLASSES)


def test_choose_slots__most_changed_first_and_one_for_each_class(output):
    cat, sky = choose_slots(output, 3)
    assert (cat.slot, CLASSES[cat.label]) == (2, 'cat')
    assert (sky.slot, CLASSES[sky.label]) == (1, 'sky')
    assert [slot.slot for slot in choose_slots(output, 1)] == [2]


def test_choose_slots__maps(output):
    cat, sky = choose_slots(output, 3)
    np.testing.assert_allclose(cat.factor, 3., rtol=1e-6)
    np.testing.assert_allclose(cat.plain, 1 / (1 + np.exp(-0.5)), rtol=1e-6)
    np.testing.assert_allclose(cat.relaxed, 1 / (1 + np.exp(-1.5)), rtol=1e-6)
    assert cat.segment.sum() == 4 and sky.segment.sum() == 7
    np.testing.assert_allclose(sky.class_targets, [.01, 0, 1, 0], atol=1e-7)


def test_draw_remask__a_row_for_each_slot(output):
    figure = draw_remask(output, choose_slots(output, 3))
    labels = [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()]
    assert labels == ['slot 2: cat', 'slot 1: sky']


def test_draw_reclass__bars_are_the_class_targets(output):
    figure = draw_reclass(output, choose_slots(output, 3))
    bars = [[(text.get_text(), bar.get_width()) for text, bar in zip(axis.get_yticklabels(), axis.patches)]
            for axis in figure.axes[1::2]]
    assert bars == [[('cat', 1.)], [('sky', 1.), ('cat', pytest.approx(.01))]]


def _batch() -> dict:
    """One image with a thing on stuff, smaller than the input of the network."""
    segment_map = torch.ones(1, 65, 40, dtype=torch.uint8)
    segment_map[:, :30] = 2
    sample = DetDataSample(metainfo=dict(img_shape=(65, 40), ori_shape=(65, 40), img_id=0))
    sample.gt_panoptic_seg = PixelData(segment_map=segment_map)
    sample.gt_segments = InstanceData(
        labels=torch.tensor([1, NUM_CLASSES - 1]), is_thing=torch.tensor([1, 0]) > 0)
    image = torch.zeros(3, 65, 40, dtype=torch.uint8)
    image[0] = 200  # blue, the first channel of BGR
    return dict(inputs=[image], data_samples=[sample])


def test_record_relaxed_output__first_stage_of_a_training_step():
    torch.manual_seed(0)
    model = MODELS.build(detector_config(relaxed=True)).eval()
    output = record_relaxed_output(model, _batch(), [str(index) for index in range(NUM_CLASSES)])
    assert output.stage == 0 and not model.training

    # What the slots have: Eq. 1 and 2 of ReMaX, and both segments
    prediction = output.prediction
    classes, semantics = prediction.class_logits[0, :, :-1].sigmoid(), prediction.sem_logits[0].sigmoid()
    for slot in choose_slots(output, 2):
        gate = sum(classes[slot.slot, k] * semantics[k] for k in range(NUM_CLASSES))
        found = slot.factor[::(len(slot.factor) - 1) // (len(gate) - 1)][:, ::(slot.factor.shape[1] - 1) //
                                                                         (gate.shape[1] - 1)]
        np.testing.assert_allclose(found, 1 + gate, rtol=1e-4)
        assert slot.class_targets[slot.label] == 1
    assert {slot.label for slot in choose_slots(output, 9)} == {1, NUM_CLASSES - 1}

    # The image is RGB and padded with black at the right.
    assert (output.image[:, :40] == (0, 0, 200)).all() and (output.image[:, 40:] == 0).all()


def test_record_relaxed_output__models_without_remask():
    plain = MODELS.build(detector_config(relaxed=False))
    with pytest.raises(ValueError, match='no output has relaxed masks'):
        record_relaxed_output(plain, _batch(), CLASSES)
    with pytest.raises(ValueError, match='PanopticCriterion, but got Linear'):
        record_relaxed_output(torch.nn.Linear(1, 1), _batch(), CLASSES)


def test_draw_relaxations__no_slots(tmp_path):
    config = Config.fromfile(REPOSITORY / 'configs/mini/remax_mnv3-s_1xb8-1k_mini-129.py')
    with pytest.raises(ValueError, match='`num_slots` to be at least 1'):
        draw_relaxations(config, tmp_path, num_slots=0)
