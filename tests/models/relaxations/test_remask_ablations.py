"""ReMask in the variants that the paper's tables compare, alone and in the whole head with its losses."""
import copy
import itertools

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from torch import nn

from remax_mm.models.inference_copy import inference_copy
from remax_mm.models.relaxations import (GroundTruthReMask, ReMask, ReMaskAtTest, ground_truth_gate,
                                         relax_mask_logits)
from remax_mm.structures import MaskPrediction, StageContext
from tests.random_statistics import randomize_norms
from tests.tiny_model import head_config

IN_CHANNELS = (4, 6, 8, 10)
NUM_CLASSES = 3
HEAD = dict(type='Conv2d', in_channels=4, out_channels=NUM_CLASSES, kernel_size=1)


def _prediction(size=(2, 3), dtype=torch.float64):
    return MaskPrediction(
        torch.randn(2, 5, NUM_CLASSES + 1, dtype=dtype, requires_grad=True),
        torch.randn(2, 5, *size, dtype=dtype, requires_grad=True), torch.randn(2, 6, *size, dtype=dtype))


def _context(size=(2, 3), dtype=torch.float64):
    """Features of 4 and 7 channels, and ground truth at three times the resolution."""
    full_size = [3 * (x - 1) + 1 for x in size]
    return StageContext(
        torch.randn(2, 4, *size, dtype=dtype), torch.randn(2, 7, *size, dtype=dtype),
        torch.randint(0, NUM_CLASSES + 1, (2, *full_size)))


def _reference_ground_truth_gate(sem_seg, class_logits, activation):
    """Of each pixel, what each slot gives to the pixel's true class; nothing where that is void."""
    batch_size, num_slots, columns = class_logits.shape
    gate = torch.zeros(batch_size, num_slots, *sem_seg.shape[1:], dtype=class_logits.dtype)
    for image, slot, row, column in itertools.product(*map(range, gate.shape)):
        label = int(sem_seg[image, row, column])
        if label < columns - 1:
            logits = class_logits[image, slot]
            total = logits.exp().sum() if activation == 'softmax' else 1 + logits[label].exp()
            gate[image, slot, row, column] = logits[label].exp() / total
    return gate


# ---- ground truth in place of predicted semantics (Table 7)


@pytest.mark.parametrize('activation', ['sigmoid', 'softmax'])
def test_ground_truth_gate__naive_loops(activation):
    sem_seg, class_logits = _context().sem_seg, _prediction().class_logits.detach()
    torch.testing.assert_close(
        ground_truth_gate(sem_seg, class_logits, activation),
        _reference_ground_truth_gate(sem_seg, class_logits, activation))


def test_ground_truth_gate__by_hand():
    # Pixels of class 0, class 1 and void; a slot of zero logits, and one that is sure of class 1.
    gate = ground_truth_gate(torch.tensor([[[0, 1, 2]]]), torch.tensor([[[0., 0., 0.], [-99., 99., 0.]]]))
    assert gate.tolist() == [[[[.5, .5, 0.]], [[pytest.approx(0, abs=1e-30), 1., 0.]]]]


def test_ground_truth_gate__is_that_of_sure_semantics():
    sem_seg, prediction = _context().sem_seg[:, ::3, ::3], _prediction()
    sure = torch.full((2, NUM_CLASSES + 1, 2, 3), -200., dtype=torch.float64)
    sure = sure.scatter(1, sem_seg[:, None], 200.)[:, :-1]
    relaxed = relax_mask_logits(prediction.mask_logits, prediction.class_logits, sure)
    ours = GroundTruthReMask()(prediction, StageContext(None, None, sem_seg))
    torch.testing.assert_close(ours.relaxed_mask_logits, relaxed)


@pytest.mark.parametrize('activation', ['sigmoid', 'softmax'])
@pytest.mark.parametrize('identity', [True, False])
def test_ground_truth_remask__training(activation, identity):
    prediction, context = _prediction(), _context()
    relaxed = GroundTruthReMask(activation, identity)(prediction, context)
    gate = _reference_ground_truth_gate(context.sem_seg[:, ::3, ::3], prediction.class_logits.detach(),
                                        activation)
    expected = prediction.mask_logits * gate + (prediction.mask_logits if identity else 0)
    torch.testing.assert_close(relaxed.relaxed_mask_logits, expected)
    assert relaxed.sem_logits is None  # nothing for a semantic loss to see
    assert all(new is old for new, old in zip(relaxed[:3], prediction[:3]))


@pytest.mark.parametrize('detach_class', [True, False])
def test_ground_truth_remask__where_gradients_stop(detach_class):
    prediction = _prediction()
    relaxed = GroundTruthReMask(detach_class=detach_class)(prediction, _context())
    relaxed.relaxed_mask_logits.square().sum().backward()
    assert (prediction.class_logits.grad is None) == detach_class
    assert prediction.mask_logits.grad.abs().min() > 0


def test_ground_truth_remask__identity_in_eval_and_without_parameters():
    remask, prediction = GroundTruthReMask().eval(), _prediction()
    assert remask(prediction, StageContext(torch.randn(1))) is prediction
    assert not remask.state_dict()


def test_ground_truth_remask__full_precision_under_mixed_precision():
    prediction, context = _prediction(dtype=torch.float32), _context()
    exact = GroundTruthReMask()(prediction, context).relaxed_mask_logits
    with torch.autocast('cpu', dtype=torch.bfloat16):
        relaxed = GroundTruthReMask()(prediction, context).relaxed_mask_logits
    assert relaxed.dtype == torch.float32 and torch.equal(relaxed, exact)


def test_ground_truth_remask__bad_input():
    with pytest.raises(ValueError, match='semantic ground truth in training.*got none'):
        GroundTruthReMask()(_prediction(), _context()._replace(sem_seg=None))
    with pytest.raises(ValueError, match=r'ground truth of \(5, 5\) and a prediction of \(2, 3\)'):
        GroundTruthReMask()(_prediction(),
                            _context()._replace(sem_seg=torch.zeros(2, 5, 5, dtype=torch.int64)))
    with pytest.raises(ValueError, match="among .*but got 'tanh'"):
        GroundTruthReMask('tanh')


# ---- ReMask at test (Table 5)


@pytest.mark.parametrize('training', [True, False])
def test_remask_at_test__is_remask_in_training(training):
    remask = ReMask(HEAD).double()
    at_test = ReMaskAtTest(HEAD).double().train(training)
    at_test.load_state_dict(remask.state_dict())  # the same keys
    prediction, context = _prediction(), _context()
    for ours, theirs in zip(at_test(prediction, context), remask(prediction, context)):
        assert torch.equal(ours, theirs)


# ---- what the semantic head looks at


@pytest.mark.parametrize('source, channels', [('pixel_space', 4), ('pixel_decoder', 7), ('embedding', 6)])
def test_remask__source(source, channels):
    remask = ReMask(dict(HEAD, in_channels=channels), source=source).double()
    prediction, context = _prediction(), _context()
    feature = dict(
        pixel_space=context[0], pixel_decoder=context[1], embedding=prediction.pixel_feature)[source]
    assert torch.equal(remask(prediction, context).sem_logits, remask.semantic_head(feature))


def test_remask__bad_source():
    with pytest.raises(ValueError, match="source of ReMask among .*but got 'backbone'"):
        ReMask(HEAD, source='backbone')
    with pytest.raises(ValueError, match="to hold 'pixel_decoder', but got None"):
        ReMask(HEAD, source='pixel_decoder')(_prediction(), StageContext(torch.randn(1)))


# ---- in the whole head, with its losses


def _head(variant=None, criterion=None, seed=0, **options):
    """A tiny head from a seed; ``variant`` of ReMask and ``criterion`` change it as a child config would."""
    config = head_config(IN_CHANNELS, **options)
    if variant is not None:
        config['remask'].update(variant)
    config['criterion'].update(criterion or {})
    torch.manual_seed(seed)
    return randomize_norms(MODELS.build(config))


def _features(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, channels, 32 // stride + 1, 64 // stride + 1, generator=generator)
        for channels, stride in zip(IN_CHANNELS, (4, 8, 16, 32))
    ]


def _data_samples():
    """Two images of two things and one stuff segment, with a stripe of void."""
    samples = []
    for split in (20, 40):
        segment_map = torch.ones(1, 33, 65, dtype=torch.uint8)
        segment_map[..., split:] = 2
        segment_map[:, 16:] = 3
        segment_map[..., :4] = 0
        sample = DetDataSample()
        sample.gt_panoptic_seg = PixelData(segment_map=segment_map)
        sample.gt_segments = InstanceData(
            labels=torch.tensor([0, 2, 4]), is_thing=torch.tensor([True, True, False]))
        samples.append(sample)
    return samples


def _losses(head):
    torch.manual_seed(2)  # dropout, and the losses sample pixels
    return head.loss(_features(), _data_samples())


def _copy_weights(source, target):
    """``target`` with the weights of ``source``, which may have more."""
    missing = target.load_state_dict(source.state_dict(), strict=False).missing_keys
    assert not missing
    return target


def _without_dropout(head):
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return head


def _assert_same_training_step(ours, theirs):
    """Losses and gradients bit for bit."""
    a, b = _losses(ours), _losses(theirs)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    sum(a.values()).backward()
    sum(b.values()).backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        assert torch.equal(parameter.grad, gradients[name]), name


SOFTMAX = dict(loss_mask_id=dict(type='SoftmaxMaskIDLoss', loss_weight=0.3))
NO_RELAXATION = dict(remask=None)


def test_remax_head__without_remask_and_with_eta_0_is_plain_kmax():
    kmax = _head()
    criterion = dict(SOFTMAX, loss_stage_sem=None, reclass=dict(type='ReClass', smoothing=0.0))
    remax = _head(relaxed=True, criterion=criterion, **NO_RELAXATION)
    _assert_same_training_step(_copy_weights(kmax, remax), kmax)


def test_remax_head__with_eta_0_is_remask_alone():
    ours = _head(relaxed=True, criterion=dict(reclass=dict(type='ReClass', smoothing=0.0)))
    theirs = _head(relaxed=True, criterion=dict(reclass=None))
    _assert_same_training_step(ours, _copy_weights(ours, theirs))
    different = _copy_weights(
        ours, _head(relaxed=True, criterion=dict(reclass=dict(type='ReClass', smoothing=0.5))))
    assert _losses(different)['loss_cls'] != _losses(ours)['loss_cls']


def test_remax_head__defaults_are_the_named_options():
    options = dict(
        source='pixel_space', activation='sigmoid', identity=True, stop_gradient=True, detach_class=True)
    ours = _head(relaxed=True, variant=options, relax_assignment=True)
    theirs = _head(relaxed=True)
    _assert_same_training_step(ours, theirs)


def test_remax_head__ground_truth_reaches_no_default_relaxation():
    head = _without_dropout(_head(relaxed=True))
    pixel_features = head.pixel_decoder(_features())
    sem_seg = torch.randint(0, 6, (2, 9, 17))
    for with_truth, without in zip(
            head.transformer_decoder(pixel_features, sem_seg), head.transformer_decoder(pixel_features)):
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(with_truth, without))


@pytest.mark.parametrize('relax_assignment', [True, False])
@pytest.mark.parametrize('activation', ['sigmoid', 'softmax'])
def test_remax_head__panoptic_losses_reach_no_semantic_head(relax_assignment, activation):
    """Through head and criterion together: no path at all, so that the gradient is exactly zero."""

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

    # Where the gradient is let through, it comes, though not to the auxiliary head.
    gradients, num_auxiliary = panoptic_gradients(stop_gradient=False)
    assert all(gradient is None for gradient in gradients[:num_auxiliary])
    assert all(gradient is not None for gradient in gradients[num_auxiliary:])
    assert any(gradient.abs().max() > 0 for gradient in gradients[num_auxiliary:])


@pytest.mark.parametrize('identity', [True, False])
def test_remax_head__ground_truth_semantics(identity):
    criterion = dict(loss_stage_sem=None)
    head = _head(relaxed=True, criterion=criterion, **NO_RELAXATION)
    remask = dict(type='GroundTruthReMask', identity=identity)
    truthful = _copy_weights(head, _head(relaxed=True, criterion=criterion, remask=remask, seed=3))

    seen = []
    for layer in truthful.transformer_decoder.layers[:2]:
        layer.remask.register_forward_hook(lambda module, args, result: seen.append((*args, result)))
    losses = _losses(truthful)
    assert {name for name in losses if name.endswith('loss_sem')} == {'loss_sem'}
    assert list(truthful.state_dict()) == list(head.state_dict())

    # The ground truth at mask stride, of which each stage takes its own share: here 2 x 3 and 3 x 5 pixels.
    segment_map = torch.cat([sample.gt_panoptic_seg.segment_map for sample in _data_samples()])[:, ::4, ::4]
    labels = torch.tensor([5, 0, 2, 4])[segment_map.long()]
    for (prediction, context, result), stride in zip(seen, (8, 4)):
        assert torch.equal(context.sem_seg, labels)
        gate = _reference_ground_truth_gate(labels[:, ::stride, ::stride], prediction.class_logits.detach(),
                                            'sigmoid')
        expected = prediction.mask_logits * (gate + identity)
        torch.testing.assert_close(result.relaxed_mask_logits, expected)

    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in truthful.parameters())
    head = _copy_weights(truthful, head)  # with the step's running statistics
    with torch.no_grad():
        for ours, theirs in zip(truthful.eval()(_features()), head.eval()(_features())):
            assert all(a is b is None or torch.equal(a, b) for a, b in zip(ours, theirs))


def test_remax_head__remask_at_test():
    trained = _without_dropout(_head(relaxed=True))
    for layer in trained.transformer_decoder.layers[:2]:
        # Masks that differ little and classes that differ much: ReMask decides who gets a pixel.
        nn.init.normal_(layer.predictor.class_head.conv.weight)
        nn.init.normal_(layer.remask.semantic_head.classifier.conv.weight)
        nn.init.constant_(layer.predictor.mask_norm.weight, 0.01)
        nn.init.constant_(layer.predictor.mask_norm.bias, 1.0)
    at_test = _copy_weights(trained, _head(relaxed=True, variant=dict(type='ReMaskAtTest'), seed=3)).eval()
    plain = copy.deepcopy(trained).eval()
    with torch.no_grad():
        ours, theirs = at_test(_features()), plain(_features())

    # The relaxed masks of the first layer assign pixels to slots, which shows from the second layer on.
    assert torch.equal(ours[0].mask_logits, theirs[0].mask_logits)
    assert [p.relaxed_mask_logits is not None for p in ours] == [True, True, False, False]
    assert not torch.equal(ours[-1].mask_logits, theirs[-1].mask_logits)

    # Its losses' side is untouched, and stripping it for inference leaves it its semantic heads.
    _assert_same_training_step(_without_dropout(at_test.train()), trained)
    with torch.no_grad():
        stripped = inference_copy(at_test)(_features())
        again = at_test.eval()(_features())
    assert all(torch.equal(a.mask_logits, b.mask_logits) for a, b in zip(stripped, again))
    assert not any('.remask.' in name for name in inference_copy(trained).state_dict())


@pytest.mark.parametrize('source', ['pixel_decoder', 'embedding'])
def test_remax_head__semantic_heads_on_other_features(source):
    head = _head(relaxed=True, variant=dict(source=source))
    sum(_losses(head).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())

    head = _without_dropout(head)
    feature = dict(pixel_decoder=head.pixel_decoder(_features())[1])
    second = head(_features())[1]
    feature['embedding'] = second.pixel_feature
    torch.testing.assert_close(second.sem_logits,
                               head.transformer_decoder.layers[1].remask.semantic_head(feature[source]))


def test_remax_head__softmax_throughout():
    """Table 2's softmax with ReMaX: each sigmoid of the paper's text becomes a softmax."""
    criterion = dict(SOFTMAX, reclass=dict(type='ReClass', activation='softmax'))
    head = _without_dropout(_head(relaxed=True, variant=dict(activation='softmax'), criterion=criterion))
    losses = _losses(head)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    stage = head(_features())[0]
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
def test_remax_head__semantic_losses_of_the_stages(loss):
    """The stages' own loss changes, those of the panoptic side do not."""
    default, other = _losses(_head(relaxed=True)), _losses(
        _head(relaxed=True, criterion=dict(loss_stage_sem=loss)))
    stages = {'d0.loss_sem', 'd1.loss_sem'}
    assert default.keys() == other.keys()
    assert all(other[name].isfinite() and other[name] != default[name] for name in stages)
    assert torch.equal(default['loss_dice'], other['loss_dice'])
