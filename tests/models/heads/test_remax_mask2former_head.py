"""ReMask and ReClass on mmdet's heads: relaxed outputs and losses against loops."""
import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData

from remax_mm.models.heads.remax_mask2former_head import semantic_map, set_mask_prior
from remax_mm.models.relaxations import ReClass
from tests.mask_former_config import (FAMILIES, NUM_QUERIES, drawn_batch, head_config, mmdet_samples, prepare,
                                      small_model, training_losses)
from tests.remask_reference import reference_gate

K = 5
both = pytest.mark.parametrize('family', FAMILIES)


@both
def test_loss__terms(family):
    model = small_model(family)
    losses = training_losses(model)
    early = 3 if family == 'Mask2Former' else 2
    names = {'loss_cls', 'loss_mask', 'loss_dice'}
    assert set(losses) == names | {'loss_sem'} | {f'd{i}.{name}' for i in range(early) for name in names}
    sum(losses.values()).backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert not idle


@pytest.mark.parametrize('num_stuff', [2, 0])
@both
def test_relaxed_outputs__loops(family, num_stuff):
    model = small_model(family, num_things=5 - num_stuff, num_stuff=num_stuff).double()
    head = model.panoptic_head
    torch.nn.init.normal_(head.remask.semantic_head.classifier.conv.weight)  # so that pixels differ
    torch.nn.init.normal_(head.cls_embed.bias)
    with torch.no_grad():
        data = model.data_preprocessor(drawn_batch(), training=True)
        features = model.extract_feat(data['inputs'].double())
        outputs = head.relaxed_outputs(features, data['data_samples'])
        class_logits, mask_logits = head(features, data['data_samples'])
        feature = head.pixel_decoder(
            *((features, ) if family == 'Mask2Former' else (features,
                                                            [s.metainfo for s in data['data_samples']])))[0]
        sem_logits = head.remask.semantic_head(feature)

    torch.testing.assert_close(outputs.sem_logits, sem_logits)
    assert sem_logits.shape[1] == K + (num_stuff == 0)
    assert len(outputs.predictions) == len(mask_logits) == (4 if family == 'Mask2Former' else 3)
    for index, prediction in enumerate(outputs.predictions):
        torch.testing.assert_close(prediction.mask_logits, mask_logits[index])
        if index >= 2:  # two thirds of three layers
            assert prediction.relaxed_mask_logits is None
            continue
        gate = reference_gate(sem_logits, class_logits[index])
        torch.testing.assert_close(prediction.relaxed_mask_logits, mask_logits[index] * (1 + gate))


@both
def test_loss__supervises_relaxed_masks_and_matches_unrelaxed_masks(family):
    """The losses of an output are mmdet's of the relaxed masks, with the matching of the un-relaxed ones."""
    model, plain = small_model(family), small_model(family, relaxed=False).panoptic_head
    head = model.panoptic_head
    head.reclass = None
    features, samples = prepare(model)
    torch.manual_seed(1)
    outputs = head.relaxed_outputs(features, samples)
    metas = [dict(sem_seg=sem_seg) for sem_seg in outputs.sem_seg]
    changed = 0
    for prediction in outputs.predictions:
        unrelaxed = list(prediction.mask_logits)
        plain.get_targets = lambda classes, _masks, *rest: type(plain).get_targets(
            plain, classes, unrelaxed, *rest)
        torch.manual_seed(2)
        expected = plain._loss_by_feat_single(prediction.class_logits, prediction.supervised_mask_logits,
                                              outputs.gt_instances, [{}, {}])
        torch.manual_seed(2)
        losses = head._loss_by_feat_single(prediction.class_logits, prediction, outputs.gt_instances, metas)
        for loss, reference in zip(losses, expected):
            assert torch.equal(loss, reference)
        torch.manual_seed(2)
        del plain.get_targets
        untouched = plain._loss_by_feat_single(prediction.class_logits, prediction.mask_logits,
                                               outputs.gt_instances, [{}, {}])
        changed += not torch.equal(losses[1], untouched[1])
    assert changed == 2


@both
def test_loss__reclass_loops(family):
    """The class loss of an output, row by row, with mmdet's matching."""
    model = small_model(family)
    head = model.panoptic_head
    features, samples = prepare(model)
    with torch.no_grad():
        outputs = head.relaxed_outputs(features, samples)
        prediction = outputs.predictions[0]
        metas = [dict(sem_seg=sem_seg) for sem_seg in outputs.sem_seg]
        torch.manual_seed(4)
        loss = head._loss_by_feat_single(prediction.class_logits, prediction, outputs.gt_instances, metas)[0]

        head.reclass = None
        torch.manual_seed(4)
        metas = [dict(mask_logits=masks) for masks in prediction.mask_logits]
        labels = head.get_targets(
            list(prediction.class_logits), list(prediction.mask_logits), outputs.gt_instances, metas)[0]

    total = weights = 0.
    for b, n in itertools.product(range(2), range(NUM_QUERIES)):
        label = int(labels[b][n])
        log_p = prediction.class_logits[b, n].log_softmax(-1).tolist()
        weights += .1 if label == K else 1.
        if label == K:  # not matched: the target is "no object" only
            total -= .1 * log_p[K]
            continue
        masks = prediction.mask_logits[b, n].sigmoid()
        for k in range(K):
            is_class = outputs.sem_seg[b] == k
            covered = float(masks[is_class].mean()) if is_class.any() else 0.
            total -= (1. if k == label else .1 * covered) * log_p[k]
    assert sum(int((row < K).sum()) for row in labels) == 8
    assert loss.item() == pytest.approx(2 * total / weights, rel=1e-5)


@MODELS.register_module(force=True)
class VoidEverywhere(ReClass):
    """A custom rule for targets: every matched query is void."""

    def forward(self, class_targets, mask_logits, sem_seg):
        assert class_targets.shape[:2] == mask_logits.shape[:2] and sem_seg.shape[1:] == mask_logits.shape[2:]
        return torch.zeros_like(class_targets).index_fill(-1, torch.tensor(K), 1.)


@both
def test_loss__uses_a_registered_subclass_of_reclass(family):
    head = small_model(family, reclass=dict(type='VoidEverywhere')).panoptic_head
    outputs = head.relaxed_outputs(*prepare(small_model(family)))
    prediction = outputs.predictions[0]
    metas = [
        dict(mask_logits=masks, sem_seg=sem_seg)
        for masks, sem_seg in zip(prediction.mask_logits, outputs.sem_seg)
    ]
    labels, class_targets = head.get_targets(
        list(prediction.class_logits), list(prediction.mask_logits), outputs.gt_instances, metas)[:2]
    assert sum(int((row < K).sum()) for row in labels) == 8  # matched queries, whose label is a class
    assert all((targets[:, :K] == 0).all() and (targets[:, K] == 1).all() for targets in class_targets)


@both
def test_loss__panoptic_terms_give_the_semantic_head_no_gradient(family):
    model = small_model(family)
    semantic_head = list(model.panoptic_head.remask.parameters())
    losses = training_losses(model)
    panoptic = sum(loss for name, loss in losses.items() if name != 'loss_sem')
    gradients = torch.autograd.grad(panoptic, semantic_head, retain_graph=True, allow_unused=True)
    assert all(gradient is None for gradient in gradients)

    # The semantic loss does, and also gives one to the pixel decoder and the backbone.
    behind = [model.panoptic_head.pixel_decoder.mask_feature.weight, model.backbone.conv1.weight]
    gradients = torch.autograd.grad(losses['loss_sem'], semantic_head + behind)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


@both
def test_loss__mask_terms_give_the_class_head_no_gradient(family):
    model = small_model(family)
    losses = training_losses(model)
    masks = sum(loss for name, loss in losses.items() if 'mask' in name or 'dice' in name)
    gradient, = torch.autograd.grad(masks, [model.panoptic_head.cls_embed.weight], allow_unused=True)
    assert gradient is None


def test_semantic_map__loops():
    masks = (torch.rand(3, 9, 13) < 0.3).long()
    labels = torch.tensor([4, 1, 4])
    got = semantic_map(InstanceData(labels=labels, masks=masks), (4, 5), 6)
    nearest = F.interpolate(masks[:, None].double(), (4, 5), mode='nearest')[:, 0]
    for y, x in itertools.product(range(4), range(5)):
        on = [int(label) for label, mask in zip(labels, nearest) if mask[y, x]]
        assert got[y, x] == (on[0] if on else 6)
    assert (got == 6).any() and (got < 6).any()
    empty = InstanceData(labels=labels[:0], masks=masks[:0])
    assert (semantic_map(empty, (4, 5), 6) == 6).all()


@both
def test_loss_sem__ignores_void(family):
    model = small_model(family)
    outputs = model.panoptic_head.relaxed_outputs(*prepare(model))
    labels = outputs.sem_seg
    assert (labels == K).any()
    terms = -outputs.sem_logits.log_softmax(1).gather(1, labels.clamp(max=K - 1)[:, None])[:, 0]
    expected = terms[labels < K].mean()
    assert training_losses(model)['loss_sem'].item() == pytest.approx(expected.item(), rel=1e-5)


@both
def test_loss__images_with_void_only(family):
    model = small_model(family)
    batch = drawn_batch()
    for sample in batch['data_samples']:
        sample.gt_panoptic_seg.segment_map.zero_()
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    assert all(torch.isfinite(loss) for loss in losses.values()) and losses['loss_sem'] == 0
    sum(losses.values()).backward()


@both
def test_loss__mixed_precision_is_finite_and_close(family):
    model = small_model(family)
    expected = training_losses(model)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = training_losses(model)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32 and torch.isfinite(loss)
        assert loss.item() == pytest.approx(expected[name].item(), rel=0.2, abs=0.1), name
    sum(losses.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_loss__instances_only():
    """COCO instances: samples have no semantic map, and pixels without an instance are background."""
    model = small_model('Mask2Former', num_things=5, num_stuff=0)
    model.data_preprocessor = MODELS.build(dict(type='DetDataPreprocessor', pad_mask=True))
    head = model.panoptic_head
    data = model.data_preprocessor(mmdet_samples(drawn_batch()), training=True)
    outputs = head.relaxed_outputs(model.extract_feat(data['inputs']), data['data_samples'])
    assert [len(gt.labels) for gt in outputs.gt_instances] == [2, 2]
    assert set(outputs.sem_seg.unique().tolist()) == {0, 2, 5}

    torch.manual_seed(3)
    losses = model(**data, mode='loss')
    logits = outputs.sem_logits.log_softmax(1)
    expected = -logits.gather(1, outputs.sem_seg[:, None]).mean()  # background counts
    assert losses['loss_sem'].item() == pytest.approx(expected.item(), rel=1e-5)
    sum(losses.values()).backward()
    result, = model.eval().test_step(mmdet_samples(drawn_batch(1)))
    assert 'pred_panoptic_seg' not in result and result.pred_instances.labels.max() < 5


@both
def test_training__resumes_from_a_state_dict(family):

    def build():
        model = small_model(family)
        wrapper = dict(
            type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3), clip_grad=dict(max_norm=1.))
        return model, build_optim_wrapper(model, wrapper)

    def step(model, optimizer, seed):
        torch.manual_seed(seed)
        return model.train_step(drawn_batch(), optimizer)

    model, optimizer = build()
    for seed in range(2):
        step(model, optimizer, seed)
    state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    expected = step(model, optimizer, 2)

    again, optimizer = build()
    again.load_state_dict(state[0])
    optimizer.load_state_dict(state[1])
    losses = step(again, optimizer, 2)
    assert all(torch.equal(losses[name], expected[name]) for name in expected)
    for a, b in zip(again.parameters(), model.parameters()):
        assert torch.equal(a, b)


@pytest.mark.parametrize('probability', [0.1, 0.8])
def test_set_mask_prior__first_channel_is_the_bias(probability):
    embed, feature = torch.nn.Linear(4, 3), torch.nn.Conv2d(5, 3, 3)
    set_mask_prior(embed, feature, probability)
    product = embed(torch.randn(2, 7, 4))[..., :1] * feature(torch.randn(2, 5, 9, 9))[:, 0].flatten(1)[:,
                                                                                                       None]
    assert product.shape == (2, 7, 49)
    torch.testing.assert_close(product.sigmoid(), torch.full_like(product, probability))
    with pytest.raises(ValueError, match='between 0 and 1, but got 1.5'):
        set_mask_prior(embed, feature, 1.5)
    with pytest.raises(ValueError, match='layers with a bias'):
        set_mask_prior(torch.nn.Linear(4, 3, bias=False), feature, probability)


@both
def test_head__mask_prior_sets_the_first_channel_only(family):
    heads = []
    for options in ({}, dict(mask_prior=None), dict(mask_prior=0.1)):
        torch.manual_seed(0)
        config = head_config(family, **options)
        config.type = f'ReMaX{family}Head' if options else config.type
        heads.append(MODELS.build(config))
        heads[-1].init_weights()
    plain, without, prior = (head.state_dict() for head in heads)
    assert list(plain) == list(without) == list(prior)
    assert all(map(torch.equal, plain.values(), without.values()))
    changed = {name for name in plain if not torch.equal(plain[name], prior[name])}
    assert changed == {
        f'{layer}.{kind}'
        for layer in ('mask_embed.4', 'pixel_decoder.mask_feature')
        for kind in ('weight', 'bias')
    }
    assert all(torch.equal(plain[name][1:], prior[name][1:]) for name in changed)
