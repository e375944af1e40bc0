"""ReMaX in a whole head with its losses: the relaxations and their variants."""
import copy

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from remax_mm.models.inference_copy import inference_copy
from tests.models.heads.head_inputs import IN_CHANNELS, backbone_features, data_samples, without_dropout
from tests.random_statistics import randomize_norms
from tests.remask_reference import reference_ground_truth_gate
from tests.tiny_model import head_config


def _head(variant=None, criterion=None, seed=0, **options):
    """A tiny head; ``variant`` and ``criterion`` update the configs of ReMask and of the criterion."""
    config = head_config(IN_CHANNELS, **options)
    if variant is not None:
        config['remask'].update(variant)
    config['criterion'].update(criterion or {})
    torch.manual_seed(seed)
    return randomize_norms(MODELS.build(config))


def _losses(head):
    torch.manual_seed(2)  # for dropout and for the pixels that the losses sample
    return head.loss(backbone_features(), data_samples())


def _copy_weights(source, target):
    """``target`` with the weights of ``source``, which may have further ones."""
    missing = target.load_state_dict(source.state_dict(), strict=False).missing_keys
    assert not missing
    return target


def _assert_same_training_step(ours, theirs):
    """Equal losses and gradients, bit for bit."""
    a, b = _losses(ours), _losses(theirs)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    sum(a.values()).backward()
    sum(b.values()).backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        assert torch.equal(parameter.grad, gradients[name]), name


SOFTMAX = dict(loss_mask_id=dict(type='SoftmaxMaskIDLoss', loss_weight=0.3))
NO_RELAXATION = dict(remask=None)


def test_remax_head__without_remask_and_with_eta_0_equals_kmax():
    kmax = _head()
    criterion = dict(SOFTMAX, loss_stage_sem=None, reclass=dict(type='ReClass', smoothing=0.0))
    remax = _head(relaxed=True, criterion=criterion, **NO_RELAXATION)
    _assert_same_training_step(_copy_weights(kmax, remax), kmax)


def test_remax_head__with_eta_0_equals_remask_only():
    ours = _head(relaxed=True, criterion=dict(reclass=dict(type='ReClass', smoothing=0.0)))
    theirs = _head(relaxed=True, criterion=dict(reclass=None))
    _assert_same_training_step(ours, _copy_weights(ours, theirs))
    different = _copy_weights(
        ours, _head(relaxed=True, criterion=dict(reclass=dict(type='ReClass', smoothing=0.5))))
    assert _losses(different)['loss_cls'] != _losses(ours)['loss_cls']


def test_remax_head__default_options():
    options = dict(
        source='pixel_space', activation='sigmoid', identity=True, stop_gradient=True, detach_class=True)
    ours = _head(relaxed=True, variant=options, relax_assignment=True)
    theirs = _head(relaxed=True)
    _assert_same_training_step(ours, theirs)


def test_remax_head__default_remask_ignores_the_ground_truth():
    head = without_dropout(_head(relaxed=True))
    pixel_features = head.pixel_decoder(backbone_features())
    sem_seg = torch.randint(0, 6, (2, 9, 17))
    for with_truth, without in zip(
            head.transformer_decoder(pixel_features, sem_seg), head.transformer_decoder(pixel_features)):
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(with_truth, without))


@pytest.mark.parametrize('relax_assignment', [True, False])
@pytest.mark.parametrize('activation', ['sigmoid', 'softmax'])
def test_remax_head__panoptic_losses_give_semantic_heads_no_gradient(relax_assignment, activation):
    """There is no path from the losses to the semantic heads, so that autograd returns None."""

    def semantic_parameters(head):
        stages = [layer.remask for layer in head.transformer_decoder.layers if layer.remask is not None]
        return [p for part in (head.semantic_head, *stages) for p in part.parameters()]

    def panoptic_gradients(**options):
        variant = dict(activation=activation, **options)
        head = _head(relaxed=True, variant=variant, relax_assignment=relax_assignment)
        losses = _losses(head)
        panoptic = sum(loss for name, loss in losses.items() if not name.endswith('loss_sem'))
        parameters = semantic_parameters(head)
        return torch.autograd.grad(
            panoptic, parameters, allow_unused=True), len(list(head.semantic_head.parameters()))

    gradients, _ = panoptic_gradients()
    assert gradients and all(gradient is None for gradient in gradients)

    # Without the stop-gradient, the heads of the stages have one, and the auxiliary head still has none.
    gradients, num_auxiliary = panoptic_gradients(stop_gradient=False)
    assert all(gradient is None for gradient in gradients[:num_auxiliary])
    assert all(gradient is not None for gradient in gradients[num_auxiliary:])
    assert any(gradient.abs().max() > 0 for gradient in gradients[num_auxiliary:])


@pytest.mark.parametrize('identity', [True, False])
def test_remax_head__ground_truth_remask(identity):
    criterion = dict(loss_stage_sem=None)
    head = _head(relaxed=True, criterion=criterion, **NO_RELAXATION)
    remask = dict(type='GroundTruthReMask', identity=identity)
    relaxed = _copy_weights(head, _head(relaxed=True, criterion=criterion, remask=remask, seed=3))

    seen = []
    for layer in relaxed.transformer_decoder.layers[:2]:
        layer.remask.register_forward_hook(lambda module, args, result: seen.append((*args, result)))
    losses = _losses(relaxed)
    assert {name for name in losses if name.endswith('loss_sem')} == {'loss_sem'}
    assert list(relaxed.state_dict()) == list(head.state_dict())

    # The ground truth has the stride of the final masks; each stage takes every 8th or 4th pixel of it.
    segment_map = torch.cat([sample.gt_panoptic_seg.segment_map for sample in data_samples()])[:, ::4, ::4]
    labels = torch.tensor([5, 0, 2, 4])[segment_map.long()]
    for (prediction, context, result), stride in zip(seen, (8, 4)):
        assert torch.equal(context.sem_seg, labels)
        gate = reference_ground_truth_gate(labels[:, ::stride, ::stride], prediction.class_logits.detach(),
                                           'sigmoid')
        expected = prediction.mask_logits * (gate + identity)
        torch.testing.assert_close(result.relaxed_mask_logits, expected)

    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in relaxed.parameters())
    head = _copy_weights(relaxed, head)  # with the running statistics after the step
    with torch.no_grad():
        for ours, theirs in zip(relaxed.eval()(backbone_features()), head.eval()(backbone_features())):
            assert all(a is b is None or torch.equal(a, b) for a, b in zip(ours, theirs))


def test_remax_head__remask_at_test():
    trained = without_dropout(_head(relaxed=True))
    for layer in trained.transformer_decoder.layers[:2]:
        # Masks that differ little and classes that differ a lot: ReMask decides which slot gets a pixel.
        nn.init.normal_(layer.predictor.class_head.conv.weight)
        nn.init.normal_(layer.remask.semantic_head.classifier.conv.weight)
        nn.init.constant_(layer.predictor.mask_norm.weight, 0.01)
        nn.init.constant_(layer.predictor.mask_norm.bias, 1.0)
    at_test = _copy_weights(trained, _head(relaxed=True, variant=dict(type='ReMaskAtTest'), seed=3)).eval()
    plain = copy.deepcopy(trained).eval()
    with torch.no_grad():
        ours, theirs = at_test(backbone_features()), plain(backbone_features())

    # The relaxed masks of the first layer assign pixels to slots, which changes the masks of later layers.
    assert torch.equal(ours[0].mask_logits, theirs[0].mask_logits)
    assert [p.relaxed_mask_logits is not None for p in ours] == [True, True, False, False]
    assert not torch.equal(ours[-1].mask_logits, theirs[-1].mask_logits)

    # In training it is the same as ReMask. A copy for inference keeps its semantic heads.
    _assert_same_training_step(without_dropout(at_test.train()), trained)
    with torch.no_grad():
        stripped = inference_copy(at_test)(backbone_features())
        again = at_test.eval()(backbone_features())
    assert all(torch.equal(a.mask_logits, b.mask_logits) for a, b in zip(stripped, again))
    assert not any('.remask.' in name for name in inference_copy(trained).state_dict())


@pytest.mark.parametrize('source', ['pixel_decoder', 'embedding'])
def test_remax_head__semantic_heads_on_other_features(source):
    head = _head(relaxed=True, variant=dict(source=source))
    sum(_losses(head).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())

    head = without_dropout(head)
    feature = dict(pixel_decoder=head.pixel_decoder(backbone_features())[1])
    second = head(backbone_features())[1]
    feature['embedding'] = second.pixel_feature
    torch.testing.assert_close(second.sem_logits,
                               head.transformer_decoder.layers[1].remask.semantic_head(feature[source]))


def test_remax_head__softmax_everywhere():
    """Table 2's softmax with ReMaX: each sigmoid of the paper's text becomes a softmax."""
    criterion = dict(SOFTMAX, reclass=dict(type='ReClass', activation='softmax'))
    head = without_dropout(_head(relaxed=True, variant=dict(activation='softmax'), criterion=criterion))
    losses = _losses(head)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    stage = head(backbone_features())[0]
    ratio = stage.relaxed_mask_logits / stage.mask_logits
    assert ratio.min() >= 1 and ratio.max() <= 2 + 1e-5  # a gate of probabilities lies in [0, 1]


@pytest.mark.parametrize('name', ['mean', 'matched'])
def test_remax_head__mask_id_over_slots(name):
    """The mean over the 6 slots is a sixth of their sum; matched slots have less than all of them."""
    loss = dict(type='SigmoidMaskIDLoss', loss_weight=0.3)
    total = _losses(_head(relaxed=True))
    other = _losses(_head(relaxed=True, criterion=dict(loss_mask_id=dict(loss, slot_reduction=name))))
    for key in total:
        if not key.endswith('loss_mask_id'):
            assert torch.equal(total[key], other[key])
        elif name == 'mean':
            torch.testing.assert_close(other[key], total[key] / 6)
        else:
            assert 0 < other[key] < total[key]


@pytest.mark.parametrize('loss', [
    dict(type='BinarySemanticLoss', loss_weight=0.5),
    dict(type='UpsampledSemanticLoss', num_samples=20, loss_weight=0.5)
])
def test_remax_head__other_semantic_losses_of_the_stages(loss):
    """The semantic losses of the stages change, the panoptic losses do not."""
    default, other = _losses(_head(relaxed=True)), _losses(
        _head(relaxed=True, criterion=dict(loss_stage_sem=loss)))
    stages = {'d0.loss_sem', 'd1.loss_sem'}
    assert default.keys() == other.keys()
    assert all(other[name].isfinite() and other[name] != default[name] for name in stages)
    assert torch.equal(default['loss_dice'], other['loss_dice'])
