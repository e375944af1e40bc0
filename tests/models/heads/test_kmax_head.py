"""The head of kMaX-DeepLab and ReMaX: outputs, losses, gradients, and the network of inference."""
import copy

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import nn

from remax_mm.models.task_modules import build_panoptic_targets
from tests.models.heads.head_inputs import (IN_CHANNELS, NUM_CLASSES, NUM_SLOTS, backbone_features,
                                            crowded_data_samples, data_samples, without_dropout)
from tests.random_statistics import randomize_norms
from tests.tiny_model import head_config


def _head(**options):
    return MODELS.build(head_config(IN_CHANNELS, **options))


def _kmax_and_remax():
    """A kMaX head and a ReMaX head with the same weights."""
    remax, kmax = randomize_norms(_head(relaxed=True)), _head()
    kmax.load_state_dict(remax.state_dict(), strict=False)
    return kmax, remax


def test_kmax_head__permuting_slots_permutes_the_outputs():
    head = randomize_norms(_head()).double().eval()
    features = backbone_features(dtype=torch.float64)
    with torch.no_grad():
        predictions = head(features)
        slots = torch.randperm(NUM_SLOTS)
        centers = head.transformer_decoder.cluster_centers
        centers.copy_(centers[:, slots].clone())
        permuted = head(features)
    for before, after in zip(predictions, permuted):
        torch.testing.assert_close(after.class_logits, before.class_logits[:, slots])
        torch.testing.assert_close(after.mask_logits, before.mask_logits[:, slots])
        torch.testing.assert_close(after.pixel_feature, before.pixel_feature)


def test_kmax_head__predicts_the_final_output():
    head = randomize_norms(_head()).eval()
    features = backbone_features()
    class_logits, mask_logits = head.predict(features, None)
    final = head(features)[-1]
    assert torch.equal(class_logits, final.class_logits) and torch.equal(mask_logits, final.mask_logits)


@pytest.mark.parametrize('size', [(33, 65), (65, 33), (97, 33)])
def test_kmax_head__any_input_size(size):
    head = _head().eval()
    predictions = head(backbone_features(*size))
    strides = (32, 16, 8, 4)
    assert [tuple(p.mask_logits.shape) for p in predictions
            ] == [(2, 6, (size[0] - 1) // stride + 1, (size[1] - 1) // stride + 1) for stride in strides]


def test_kmax_head__losses_are_those_of_its_criterion():
    head = without_dropout(_head(relaxed=True))
    features, samples = backbone_features(), data_samples()

    torch.manual_seed(1)  # the losses sample pixels
    losses = head.loss(features, samples)
    torch.manual_seed(1)
    targets = build_panoptic_targets(samples, num_classes=NUM_CLASSES, size=(9, 17), num_slots=NUM_SLOTS)
    expected = head.criterion(head(features), targets, head.semantic_head(features))
    assert losses.keys() == expected.keys()
    for name in losses:
        torch.testing.assert_close(losses[name], expected[name])
    # One semantic loss of the auxiliary head, and one for each of the two relaxed layers.
    assert {name
            for name in losses if name.endswith('loss_sem')} == {'loss_sem', 'd0.loss_sem', 'd1.loss_sem'}


@pytest.mark.parametrize('finest', [2, 4])
def test_kmax_head__five_features_as_for_cityscapes(finest):
    """Masks at the stride of the finest feature, which may be 4 like that of the second; semantics at 32."""
    config = head_config((3, *IN_CHANNELS), relaxed=True)
    config['pixel_decoder'].update(
        channels=(16, 8, 8, 8, 4), num_blocks=(1, ) * 5, block_types=['axial'] * 2 + ['bottleneck'] * 3)
    config['transformer_decoder'].update(in_channels=(64, 32, 32, 32, 16), num_layers=(1, 1, 1, 0))
    config['semantic_head'] = dict(type='SimpleSemanticHead', in_channels=[10], num_classes=5, channels=8)
    config['criterion']['loss_sem'] = dict(type='SemanticLoss')
    head, criterion_inputs = MODELS.build(config), []
    head.criterion.register_forward_hook(lambda module, args, result: criterion_inputs.append(args))

    height, width = 97, 65
    samples = data_samples(height, width)
    stem = torch.randn(2, 3, (height - 1) // finest + 1, (width - 1) // finest + 1)
    losses = head.loss([stem, *backbone_features(height, width)], samples)
    assert all(loss.isfinite() for loss in losses.values())

    (predictions, targets, sem_logits), = criterion_inputs
    assert predictions[-1].mask_logits.shape[-2:] == targets.masks.shape[-2:] == stem.shape[-2:]
    maps = torch.stack([sample.gt_panoptic_seg.segment_map[0] for sample in samples])
    classes = torch.tensor([5, 0, 2, 4])[maps.int()]
    assert torch.equal(targets.sem_seg, classes[:, ::finest, ::finest])
    # The mean over all pixels that are not void
    per_image = [
        F.cross_entropy(logits[None], labels[None], ignore_index=5)
        for logits, labels in zip(sem_logits, classes[:, ::32, ::32])
    ]
    torch.testing.assert_close(losses['loss_sem'], sum(per_image) / 2)


@pytest.mark.parametrize('options', [
    dict(),
    dict(relaxed=True),
    dict(relaxed=True, num_relaxed=3),
    dict(relaxed=True, relax_assignment=False),
    dict(relaxed=True, drop_path_rate=0.2),
    dict(relaxed=True, norm_cfg=dict(type='GN', num_groups=32))
])
def test_kmax_head__trains_every_parameter(options):
    head = randomize_norms(_head(**options))
    losses = head.loss(backbone_features(), data_samples())
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    sum(losses.values()).backward()
    missing = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing


def test_kmax_head__panoptic_losses_give_the_stage_heads_no_gradient():
    head = randomize_norms(_head(relaxed=True))
    losses = head.loss(backbone_features(), data_samples())
    sum(loss for name, loss in losses.items() if not name.endswith('loss_sem')).backward()
    for layer in head.transformer_decoder.layers[:2]:
        assert all(parameter.grad is None for parameter in layer.remask.parameters())


@pytest.mark.parametrize('relax_assignment', [True, False])
def test_remax_head__equals_kmax_in_eval(relax_assignment):
    remax = randomize_norms(_head(relaxed=True, relax_assignment=relax_assignment))
    kmax = _head()
    keys = kmax.load_state_dict(remax.state_dict(), strict=False)
    assert not keys.missing_keys and all('.remask.' in key for key in keys.unexpected_keys)

    features = backbone_features()
    with torch.no_grad():
        for ours, theirs in zip(remax.eval()(features), kmax.eval()(features)):
            assert all(torch.equal(a, b) for a, b in zip(ours[:3], theirs[:3]))
            assert ours.relaxed_mask_logits is None and ours.sem_logits is None


def test_remax_head__differs_from_kmax_in_training():
    kmax, remax = _kmax_and_remax()
    features = backbone_features()
    ours, theirs = remax.train()(features), kmax.train()(features)
    assert torch.equal(ours[0].mask_logits, theirs[0].mask_logits)
    assert not torch.equal(ours[0].relaxed_mask_logits, theirs[0].mask_logits)


def test_drop_training_parts__leaves_a_plain_kmax_head():
    kmax, remax = _kmax_and_remax()
    features = backbone_features()
    before = remax.eval().predict(features, None)
    remax.drop_training_parts()
    assert all(torch.equal(a, b) for a, b in zip(remax.predict(features, None), before))

    plain = MODELS.build(dict(head_config(IN_CHANNELS), semantic_head=None, criterion=None))
    assert list(remax.state_dict()) == list(plain.state_dict())
    kmax.drop_training_parts()
    assert list(kmax.state_dict()) == list(plain.state_dict())
    graphs = [[(name, type(module)) for name, module in head.named_modules()] for head in (remax, kmax)]
    assert graphs[0] == graphs[1]


def test_kmax_head__without_criterion_has_no_losses():
    head = _head()
    head.drop_training_parts()
    with pytest.raises(RuntimeError, match='Expected a `criterion`'):
        head.loss(backbone_features(), data_samples())


def test_kmax_head__init_weights_keeps_the_initial_weights():
    head = _head(relaxed=True)
    before = copy.deepcopy(head.state_dict())
    head.init_weights()
    assert all(torch.equal(before[key], value) for key, value in head.state_dict().items())


def test_kmax_head__initial_probability_of_void():
    prediction = _head().eval()(backbone_features())[-1]
    void = prediction.class_logits.softmax(-1)[..., -1]
    assert void.min() > 0.85 and void.max() < 0.95


def test_kmax_head__mixed_precision_ends_in_float32():
    head = randomize_norms(_head(relaxed=True))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = head.loss(backbone_features(), data_samples())
        predicted = head.eval().predict(backbone_features(), None)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    assert all(part.isfinite().all() and part.dtype == torch.float32 for part in predicted)


def test_kmax_head__synchronized_norms_equal_batch_norms_in_eval():
    head = randomize_norms(_head())
    synchronized = _head(norm_cfg=dict(type='SyncBN', eps=1e-3, momentum=0.01))
    synchronized.load_state_dict(head.state_dict())
    norms = [module for module in head.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    replaced = [module for module in synchronized.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert len(replaced) == len(norms)
    features = backbone_features()
    for ours, theirs in zip(synchronized.eval().predict(features, None), head.eval().predict(features, None)):
        torch.testing.assert_close(ours, theirs)


def test_kmax_head__drops_the_smallest_segments_if_slots_are_missing():
    head, criterion_inputs = _head(), []
    head.criterion.register_forward_hook(lambda module, args, result: criterion_inputs.append(args))
    losses = head.loss(backbone_features(), crowded_data_samples())
    assert all(loss.isfinite() for loss in losses.values())
    (_, targets, _), = criterion_inputs
    assert targets.masks.shape == (2, NUM_SLOTS, 9, 17)
    # The two smallest segments, at the right, are void.
    assert targets.void[..., -2:].all() and not targets.void[..., :-2].any()


@pytest.mark.parametrize('relaxed', [False, True])
def test_kmax_head__mask_prior_changes_sigmoids_only(relaxed):
    """It adds the same value to all mask logits of an output, which does not change a softmax over slots."""
    features, samples = backbone_features(dtype=torch.float64), data_samples()
    losses = []
    for mask_prior in (None, 1 / 6):
        torch.manual_seed(0)
        head = _head(relaxed=relaxed, mask_prior=mask_prior).double()
        torch.manual_seed(1)
        losses.append(head.loss(features, samples))
    plain, shifted = losses
    sigmoid_losses = {
        name
        for name in plain if relaxed and name.endswith(('loss_mask_id', 'loss_dice', 'loss_cls'))
    }
    for name in plain.keys() - sigmoid_losses:
        torch.testing.assert_close(shifted[name], plain[name])
    if relaxed:
        # Six slots at probability 1/2 or 1/6; randomly initialized embeddings move the logits a little.
        assert shifted['loss_mask_id'] < 0.75 * plain['loss_mask_id']
