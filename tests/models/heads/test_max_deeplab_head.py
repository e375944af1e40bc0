"""The head of MaX-DeepLab, plain and with the relaxations of ReMaX."""
import copy

import pytest
import torch
from mmdet.registry import MODELS

from remax_mm.models.relaxations import relax_mask_logits
from remax_mm.models.task_modules import build_panoptic_targets
from remax_mm.structures import DualPathFeatures
from tests.models.heads.head_inputs import (IN_CHANNELS, NUM_CLASSES, NUM_SLOTS, crowded_data_samples,
                                            data_samples, without_dropout)
from tests.random_statistics import randomize_norms


def _config(relaxed=False, semantic_head='ASPPSemanticHead', **options):
    criterion = dict(
        type='PanopticCriterion',
        assigner=dict(type='PQSimilarityAssigner'),
        loss_cls=dict(type='PQClassLoss', loss_weight=3.0),
        loss_dice=dict(type='PQMaskLoss', loss_weight=3.0),
        loss_mask_id=dict(type='SoftmaxMaskIDLoss', loss_weight=0.3),
        loss_insdis=dict(type='MeanEmbeddingDiscriminationLoss', num_things_classes=3),
        loss_sem=dict(type='SemanticLoss'))
    if relaxed:
        stage_head = dict(
            type='StageSemanticHead',
            in_channels=4,
            num_classes=NUM_CLASSES,
            aspp_channels=8,
            act_cfg=dict(type='ReLU'))
        options = dict(remask=dict(type='ReMask', semantic_head=stage_head), **options)
        criterion.update(
            loss_stage_sem=dict(type='SemanticLoss', loss_weight=0.5),
            loss_mask_id=dict(type='SigmoidMaskIDLoss'),
            reclass=dict(type='ReClass'))
    semantic = dict(
        type=semantic_head, in_channels=IN_CHANNELS, num_classes=NUM_CLASSES, act_cfg=dict(type='ReLU'))
    semantic.update(dict(aspp_channels=8) if semantic_head == 'ASPPSemanticHead' else dict(channels=8))
    return dict(
        type='MaXDeepLabHead',
        num_things_classes=3,
        num_stuff_classes=2,
        in_channels=4,
        slot_channels=7,
        channels=8,
        embedding_channels=6,
        criterion=criterion,
        semantic_head=semantic,
        **options)


def _head(**options):
    return MODELS.build(_config(**options))


def _features(height=33, width=65, dtype=torch.float32):
    sizes = [((height - 1) // stride + 1, (width - 1) // stride + 1) for stride in (4, 8, 16, 16)]
    semantic = tuple(
        torch.rand(2, channels, *size, dtype=dtype) for channels, size in zip(IN_CHANNELS, sizes))
    embeddings = torch.randn(2, 2, 7, 6, dtype=dtype)
    return DualPathFeatures(torch.rand(2, 4, *sizes[0], dtype=dtype), semantic, *embeddings)


def _pair():
    """A relaxed head and a plain one with the same weights."""
    relaxed, plain = randomize_norms(_head(relaxed=True)), _head()
    keys = plain.load_state_dict(relaxed.state_dict(), strict=False)
    assert not keys.missing_keys and all(key.startswith('remask.') for key in keys.unexpected_keys)
    return relaxed, plain


def test_max_deeplab_head__predicts_from_embeddings_and_panoptic_feature():
    head = randomize_norms(_head()).eval()
    features = _features()
    prediction, = head(features)
    expected = head.predictor(features.mask_embedding, features.class_embedding, features.panoptic)
    assert all(torch.equal(a, b) for a, b in zip(prediction[:3], expected[:3]))
    assert prediction.mask_logits.shape == (2, 6, 9, 17) and prediction.class_logits.shape == (2, 6, 6)

    class_logits, mask_logits = head.predict(features, None)
    assert torch.equal(class_logits, prediction.class_logits)
    assert torch.equal(mask_logits, prediction.mask_logits)


def test_max_deeplab_head__permuting_slots_permutes_the_outputs():
    head = randomize_norms(_head()).double().eval()
    features, order = _features(dtype=torch.float64), torch.randperm(NUM_SLOTS)
    permuted = features._replace(
        class_embedding=features.class_embedding[..., order],
        mask_embedding=features.mask_embedding[..., order])
    (before, ), (after, ) = head(features), head(permuted)
    torch.testing.assert_close(after.class_logits, before.class_logits[:, order])
    torch.testing.assert_close(after.mask_logits, before.mask_logits[:, order])
    torch.testing.assert_close(after.pixel_feature, before.pixel_feature)


@pytest.mark.parametrize('relaxed', [False, True])
def test_max_deeplab_head__losses_are_those_of_its_criterion(relaxed):
    head = without_dropout(_head(relaxed=relaxed))
    features, samples = _features(), data_samples()
    losses = head.loss(features, samples)
    targets = build_panoptic_targets(samples, num_classes=NUM_CLASSES, size=(9, 17), num_slots=NUM_SLOTS)
    expected = head.criterion(head(features), targets, head.semantic_head(features.semantic))
    assert losses.keys() == expected.keys()
    assert losses.keys() == {
        'loss_cls', 'loss_mask_id', 'loss_dice', 'loss_insdis', 'loss_sem', *(['loss_stage_sem'] * relaxed)
    }
    for name in losses:
        torch.testing.assert_close(losses[name], expected[name])


@pytest.mark.parametrize('options', [
    dict(),
    dict(relaxed=True),
    dict(semantic_head='SimpleSemanticHead'),
    dict(norm_cfg=dict(type='GN', num_groups=32)),
])
def test_max_deeplab_head__trains_every_parameter(options):
    head = randomize_norms(_head(**options))
    losses = head.loss(_features(), data_samples())
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert not [name for name, p in head.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_max_deeplab_head__drops_the_smallest_segments_if_slots_are_missing():
    head, criterion_inputs = _head(), []
    head.criterion.register_forward_hook(lambda module, args, result: criterion_inputs.append(args))
    assert all(loss.isfinite() for loss in head.loss(_features(), crowded_data_samples()).values())
    (_, targets, _), = criterion_inputs
    assert targets.masks.shape == (2, NUM_SLOTS, 9, 17)
    # The two smallest segments, at the right, are void.
    assert targets.void[..., -2:].all() and not targets.void[..., :-2].any()


def test_max_deeplab_head__remask_relaxes_the_output_in_training():
    relaxed, plain = _pair()
    without_dropout(relaxed)
    features = _features()
    (ours, ), (theirs, ) = relaxed.train()(features), plain.train()(features)
    assert torch.equal(ours.mask_logits, theirs.mask_logits)
    sem_logits = relaxed.remask.semantic_head(features.panoptic)
    torch.testing.assert_close(ours.sem_logits, sem_logits)
    torch.testing.assert_close(ours.relaxed_mask_logits,
                               relax_mask_logits(theirs.mask_logits, theirs.class_logits, sem_logits))
    assert ours.supervised_mask_logits is ours.relaxed_mask_logits


def test_max_deeplab_head__panoptic_losses_give_the_stage_head_no_gradient():
    head = randomize_norms(_head(relaxed=True))
    losses = head.loss(_features(), data_samples())
    sum(loss for name, loss in losses.items() if name != 'loss_stage_sem').backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in head.remask.parameters())
    losses['loss_stage_sem'].backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.remask.parameters())


def test_max_deeplab_head__ground_truth_remask_gets_the_ground_truth():
    head = MODELS.build(dict(_config(relaxed=True), remask=dict(type='GroundTruthReMask')))
    samples, features = data_samples(), _features()
    targets = build_panoptic_targets(samples, num_classes=NUM_CLASSES, size=(9, 17), num_slots=NUM_SLOTS)
    prediction, = head.predict_masks(features, targets.sem_seg)
    gate = prediction.relaxed_mask_logits / prediction.mask_logits - 1
    classes = prediction.class_logits.sigmoid()
    classes = torch.cat([classes[..., :-1], torch.zeros_like(classes[..., -1:])],
                        dim=-1)  # the gate of void is 0
    expected = torch.stack([classes[image][:, targets.sem_seg[image]] for image in range(2)])
    torch.testing.assert_close(gate, expected, atol=1e-4, rtol=1e-4)


def test_max_deeplab_head__relaxed_equals_plain_in_eval():
    relaxed, plain = _pair()
    features = _features()
    (ours, ), (theirs, ) = relaxed.eval()(features), plain.eval()(features)
    assert all(torch.equal(a, b) for a, b in zip(ours[:3], theirs[:3]))
    assert ours.relaxed_mask_logits is None and ours.sem_logits is None


def test_drop_training_parts__leaves_a_plain_max_deeplab_head():
    relaxed, plain = _pair()
    features = _features()
    before = relaxed.eval().predict(features, None)
    relaxed.drop_training_parts()
    plain.drop_training_parts()
    assert all(torch.equal(a, b) for a, b in zip(relaxed.predict(features, None), before))

    bare = MODELS.build(dict(_config(), semantic_head=None, criterion=None))
    assert list(relaxed.state_dict()) == list(plain.state_dict()) == list(bare.state_dict())
    graphs = [[(name, type(module)) for name, module in head.named_modules()] for head in (relaxed, plain)]
    assert graphs[0] == graphs[1]
    with pytest.raises(RuntimeError, match='Expected a `criterion`'):
        plain.loss(features, data_samples())


def test_drop_training_parts__keeps_remask_at_test():
    config = _config(relaxed=True)
    config['remask']['type'] = 'ReMaskAtTest'
    head = MODELS.build(config)
    head.drop_training_parts()
    assert head.eval()(_features())[0].relaxed_mask_logits is not None


def test_max_deeplab_head__init_weights_keeps_the_initial_weights():
    head = _head(relaxed=True)
    before = copy.deepcopy(head.state_dict())
    head.init_weights()
    assert all(torch.equal(before[key], value) for key, value in head.state_dict().items())


def test_max_deeplab_head__mixed_precision_ends_in_float32():
    head = randomize_norms(_head(relaxed=True))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = head.loss(_features(), data_samples())
        predicted = head.eval().predict(_features(), None)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    assert all(part.isfinite().all() and part.dtype == torch.float32 for part in predicted)
