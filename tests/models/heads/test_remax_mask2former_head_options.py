"""Options of mmdet's heads with relaxations: which outputs are relaxed, and contradicting settings."""
import pytest
import torch
from mmdet.registry import MODELS

from remax_mm.models.losses import SoftTargetCrossEntropyLoss
from tests.mask_former_config import detector_config, prepare, small_model, training_losses

K = 5


@pytest.mark.parametrize('family, num_layers, expected', [('Mask2Former', 9, 6), ('MaskFormer', 6, 4),
                                                          ('Mask2Former', 3, 2), ('MaskFormer', 3, 2)])
def test_num_relaxed__two_thirds_of_the_layers(family, num_layers, expected):
    head = MODELS.build(detector_config(family, True, num_layers=num_layers)).panoptic_head
    assert head.num_relaxed == expected


@pytest.mark.parametrize('family, most', [('Mask2Former', 3), ('MaskFormer', 2)])
def test_num_relaxed__excludes_the_last_output(family, most):
    model = small_model(family, num_relaxed=most)
    predictions = model.panoptic_head.relaxed_outputs(*prepare(model)).predictions
    assert [p.relaxed_mask_logits is not None for p in predictions] == [True] * most + [False]
    for wrong in (0, most + 1):
        with pytest.raises(ValueError, match=f'from 1 to {most}'):
            MODELS.build(detector_config(family, True, num_relaxed=wrong))


def test_num_relaxed__is_not_checked_without_remask():
    # With one decoder layer, there is no output before the last one.
    head = MODELS.build(detector_config('MaskFormer', True, num_layers=1, remask=None, loss_sem=None))
    assert head.panoptic_head.num_relaxed == 0
    with pytest.raises(ValueError, match='from 1 to 0'):
        MODELS.build(detector_config('MaskFormer', True, num_layers=1))


@pytest.mark.parametrize('num_stuff, wrong', [(2, 6), (2, 4), (0, 5)])
def test_loss__wrong_number_of_semantic_classes(num_stuff, wrong):
    config = detector_config('MaskFormer', True, num_things=5 - num_stuff, num_stuff=num_stuff)
    config.panoptic_head.remask.semantic_head.num_classes = wrong
    with pytest.raises(ValueError, match=f'but got {wrong}'):
        training_losses(MODELS.build(config).train())


def test_head__ground_truth_remask_needs_no_semantic_head():
    model = small_model('Mask2Former', remask=dict(type='GroundTruthReMask'), loss_sem=None)
    outputs = model.panoptic_head.relaxed_outputs(*prepare(model))
    factor = outputs.predictions[0].relaxed_mask_logits / outputs.predictions[0].mask_logits
    void = (outputs.sem_seg == K)[:, None].expand_as(factor)
    torch.testing.assert_close(factor[void], torch.ones_like(factor[void]))
    assert (factor[~void] > 1).all()
    assert 'loss_sem' not in training_losses(model)


def test_head__wrong_settings():

    def build(**options):
        return MODELS.build(detector_config('Mask2Former', True, **options))

    with pytest.raises(TypeError, match="'remasks'"):
        build(remasks=None)
    with pytest.raises(ValueError, match='`loss_sem` and a `remask`'):
        build(loss_sem=None)
    with pytest.raises(ValueError, match='`loss_sem` and a `remask`'):
        build(remask=None)
    with pytest.raises(
            ValueError, match='SoftTargetCrossEntropyLoss with `reclass`, but got CrossEntropyLoss'):
        build(loss_cls=dict(type='CrossEntropyLoss', class_weight=[1.] * 6))
    assert isinstance(build().panoptic_head.loss_cls, SoftTargetCrossEntropyLoss)
