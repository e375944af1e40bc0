"""mmdet's heads with relaxations are mmdet's own heads at inference, and without relaxations in training."""
import pytest
import torch
from mmdet.registry import MODELS

from remax_mm.models.inference_copy import inference_copy
from tests.mask_former_config import (FAMILIES, SIDE, detector_config, drawn_batch, mmdet_samples,
                                      small_model, training_losses)

K = 5
both = pytest.mark.parametrize('family', FAMILIES)


def _pair(family, relaxed_options, **options):
    """mmdet's model, and one with our head and the same weights."""
    plain = small_model(family, relaxed=False, **options)
    ours = small_model(family, relaxed=False, **options, **relaxed_options)
    keys = ours.load_state_dict(plain.state_dict(), strict=False)
    assert not keys.unexpected_keys and all('.remask.' in key for key in keys.missing_keys)
    return plain, ours


@pytest.mark.parametrize('dropout', [0.0, 0.3])
@pytest.mark.parametrize('reclass', [None, dict(type='ReClass', smoothing=0.0)])
@both
def test_loss__equals_mmdets_without_relaxations(family, reclass, dropout):
    loss_cls = dict(type='SoftTargetCrossEntropyLoss', loss_weight=2.0, class_weight=[1.0] * K + [0.1])
    plain, ours = _pair(
        family, dict(type=f'ReMaX{family}Head', loss_cls=loss_cls, reclass=reclass), dropout=dropout)
    assert type(ours.panoptic_head) is not type(plain.panoptic_head)
    expected, losses = training_losses(plain), training_losses(ours)
    assert set(losses) == set(expected)
    for name, loss in losses.items():
        assert torch.equal(loss, expected[name]), name

    gradients = []
    for model, values in ((plain, expected), (ours, losses)):
        sum(values.values()).backward()
        gradients.append({name: value.grad for name, value in model.named_parameters()})
    for name, gradient in gradients[0].items():
        if gradient is not None:
            assert torch.equal(gradients[1][name], gradient), name


@both
def test_state_dict__has_mmdets_names(family):
    plain = MODELS.build(detector_config(family, relaxed=False)).state_dict()
    ours = MODELS.build(detector_config(family, relaxed=True))
    extra = set(ours.state_dict()) - set(plain)
    assert set(plain) <= set(ours.state_dict())
    assert extra and all(key.startswith('panoptic_head.remask.semantic_head.') for key in extra)
    assert set(inference_copy(ours).state_dict()) == set(plain)


@both
def test_predict__equals_mmdets_bit_for_bit(family):
    plain, ours = small_model(family, relaxed=False).eval(), small_model(family).eval()
    torch.nn.init.normal_(plain.panoptic_head.cls_embed.weight)  # otherwise every query predicts no object
    ours.load_state_dict(plain.state_dict(), strict=False)
    called = {model: [] for model in (plain, ours)}
    for model, names in called.items():
        for name, module in model.named_modules():
            module.register_forward_hook(lambda *_, name=name, names=names: names.append(name))
    with torch.no_grad():
        results, expected = (model.test_step(drawn_batch()) for model in (ours, plain))
    assert called[ours] == called[plain] and not any('remask' in name for name in called[ours])
    for result, reference in zip(results, expected):
        panoptic = result.pred_panoptic_seg.sem_seg
        assert torch.equal(panoptic, reference.pred_panoptic_seg.sem_seg) and (panoptic != K).any()
        for name in ('masks', 'scores', 'labels'):
            assert torch.equal(result.pred_instances[name], reference.pred_instances[name])

    features = plain.extract_feat(torch.randn(2, 3, SIDE, SIDE))
    samples = plain.data_preprocessor(drawn_batch())['data_samples']
    for ours_out, plain_out in zip(
            ours.panoptic_head(features, samples), plain.panoptic_head(features, samples)):
        for a, b in zip(ours_out, plain_out):
            assert torch.equal(a, b)


def test_loss__equals_mmdets_in_eval():
    model = small_model('Mask2Former').eval()
    plain = small_model('Mask2Former', relaxed=False).eval()
    plain.load_state_dict(inference_copy(model).state_dict())
    losses, expected = training_losses(model), training_losses(plain)
    assert set(losses) == set(expected)
    assert all(torch.equal(losses[name], expected[name]) for name in losses)


@both
def test_loss__accepts_samples_of_mmdets_pipeline(family):
    model = small_model(family)
    data = MODELS.build(
        dict(type='DetDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, pad_mask=True,
             pad_seg=True))(mmdet_samples(drawn_batch(), panoptic=True), training=True)  # yapf: disable
    torch.manual_seed(3)
    losses, expected = model(**data, mode='loss'), training_losses(model)
    assert all(torch.equal(losses[name], expected[name]) for name in expected)
