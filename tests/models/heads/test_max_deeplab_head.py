import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from torch import nn

from remax_mm.models.relaxations import relax_mask_logits
from remax_mm.models.task_modules import build_panoptic_targets
from remax_mm.structures import DualPathFeatures
from tests.random_statistics import randomize_norms

NUM_CLASSES = 5
WIDTHS = (4, 6, 8, 10)
"""Of the semantic features."""


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
        type=semantic_head, in_channels=WIDTHS, num_classes=NUM_CLASSES, act_cfg=dict(type='ReLU'))
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
    semantic = tuple(torch.rand(2, channels, *size, dtype=dtype) for channels, size in zip(WIDTHS, sizes))
    embeddings = torch.randn(2, 2, 7, 6, dtype=dtype)
    return DualPathFeatures(torch.rand(2, 4, *sizes[0], dtype=dtype), semantic, *embeddings)


def _data_samples(height=33, width=65):
    """Two images of two things and one stuff segment, with a stripe of void."""
    samples = []
    for split in (20, 40):
        segment_map = torch.ones(1, height, width, dtype=torch.uint8)
        segment_map[..., split:] = 2
        segment_map[:, height // 2:] = 3
        segment_map[..., :4] = 0
        sample = DetDataSample()
        sample.gt_panoptic_seg = PixelData(segment_map=segment_map)
        sample.gt_segments = InstanceData(
            labels=torch.tensor([0, 2, 4]), is_thing=torch.tensor([True, True, False]))
        samples.append(sample)
    return samples


def _pair():
    """A relaxed head and its plain sibling with the same weights."""
    relaxed, plain = randomize_norms(_head(relaxed=True)), _head()
    keys = plain.load_state_dict(relaxed.state_dict(), strict=False)
    assert not keys.missing_keys and all(key.startswith('remask.') for key in keys.unexpected_keys)
    return relaxed, plain


def test_max_deeplab_head__one_output_from_embeddings_and_panoptic_feature():
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
    features, order = _features(dtype=torch.float64), torch.randperm(6)
    permuted = features._replace(
        class_embedding=features.class_embedding[..., order],
        mask_embedding=features.mask_embedding[..., order])
    (before, ), (after, ) = head(features), head(permuted)
    torch.testing.assert_close(after.class_logits, before.class_logits[:, order])
    torch.testing.assert_close(after.mask_logits, before.mask_logits[:, order])
    torch.testing.assert_close(after.pixel_feature, before.pixel_feature)


@pytest.mark.parametrize('relaxed', [False, True])
def test_max_deeplab_head__losses_are_those_of_its_criterion(relaxed):
    head = _head(relaxed=relaxed)
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    features, samples = _features(), _data_samples()
    losses = head.loss(features, samples)
    targets = build_panoptic_targets(samples, num_classes=NUM_CLASSES, size=(9, 17), num_slots=6)
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
    losses = head.loss(_features(), _data_samples())
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert not [name for name, p in head.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_max_deeplab_head__drops_segments_that_find_no_slot():
    # Eight stripes for six slots; the two narrowest turn into void.
    head, samples, handed = _head(), _data_samples(), []
    columns = torch.arange(1, 9).repeat_interleave(torch.tensor([12, 10, 10, 10, 9, 8, 4, 2]))
    for sample in samples:
        sample.gt_panoptic_seg = PixelData(segment_map=columns.to(torch.uint8).expand(1, 33, 65).contiguous())
        sample.gt_segments = InstanceData(labels=torch.zeros(8).long(), is_thing=torch.ones(8).bool())
    head.criterion.register_forward_hook(lambda module, args, result: handed.append(args[1]))
    assert all(loss.isfinite() for loss in head.loss(_features(), samples).values())
    assert handed[0].labels.shape == (2, 6) and handed[0].owner.shape == (2, 9, 17)
    assert handed[0].void[..., -2:].all() and not handed[0].void[..., :-2].any()


def test_max_deeplab_head__remask_relaxes_the_output_in_training():
    relaxed, plain = _pair()
    for module in relaxed.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    features = _features()
    (ours, ), (theirs, ) = relaxed.train()(features), plain.train()(features)
    assert torch.equal(ours.mask_logits, theirs.mask_logits)
    sem_logits = relaxed.remask.semantic_head(features.panoptic)
    torch.testing.assert_close(ours.sem_logits, sem_logits)
    torch.testing.assert_close(ours.relaxed_mask_logits,
                               relax_mask_logits(theirs.mask_logits, theirs.class_logits, sem_logits))
    assert ours.supervised_mask_logits is ours.relaxed_mask_logits


def test_max_deeplab_head__panoptic_losses_teach_the_stage_head_nothing():
    head = randomize_norms(_head(relaxed=True))
    losses = head.loss(_features(), _data_samples())
    sum(loss for name, loss in losses.items() if name != 'loss_stage_sem').backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in head.remask.parameters())
    losses['loss_stage_sem'].backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.remask.parameters())


def test_max_deeplab_head__ground_truth_remask_sees_the_truth():
    head = MODELS.build(dict(_config(relaxed=True), remask=dict(type='GroundTruthReMask')))
    samples, features = _data_samples(), _features()
    targets = build_panoptic_targets(samples, num_classes=NUM_CLASSES, size=(9, 17), num_slots=6)
    prediction, = head.predict_masks(features, targets.sem_seg)
    gate = prediction.relaxed_mask_logits / prediction.mask_logits - 1
    classes = prediction.class_logits.sigmoid()  # void has the gate 0
    seen = torch.cat([classes[..., :-1], torch.zeros_like(classes[..., -1:])], dim=-1)
    expected = torch.stack([seen[image][:, targets.sem_seg[image]] for image in range(2)])
    torch.testing.assert_close(gate, expected, atol=1e-4, rtol=1e-4)


def test_max_deeplab_head__relaxed_is_its_plain_sibling_in_eval():
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
        plain.loss(features, _data_samples())


def test_drop_training_parts__keeps_a_remask_for_the_test():
    config = _config(relaxed=True)
    config['remask']['type'] = 'ReMaskAtTest'
    head = MODELS.build(config)
    head.drop_training_parts()
    assert head.eval()(_features())[0].relaxed_mask_logits is not None


def test_max_deeplab_head__weights_survive_the_runners_initialization():
    head = _head(relaxed=True)
    before = copy.deepcopy(head.state_dict())
    head.init_weights()
    assert all(torch.equal(before[key], value) for key, value in head.state_dict().items())


def test_max_deeplab_head__mixed_precision_ends_in_float32():
    head = randomize_norms(_head(relaxed=True))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = head.loss(_features(), _data_samples())
        predicted = head.eval().predict(_features(), None)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    assert all(part.isfinite().all() and part.dtype == torch.float32 for part in predicted)
