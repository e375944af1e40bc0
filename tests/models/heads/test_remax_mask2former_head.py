"""ReMask and ReClass on mmdet's heads: against loops, and against mmdet's own where nothing is relaxed."""
import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from remax_mm.models.heads.remax_mask2former_head import semantic_map
from remax_mm.models.inference_copy import inference_copy
from remax_mm.models.losses import SoftTargetCrossEntropyLoss
from remax_mm.models.relaxations import ReClass
from tests.mask_former_config import FAMILIES, NUM_QUERIES, SIDE, detector_config, drawn_batch, mmdet_samples

K = 5
both = pytest.mark.parametrize('family', FAMILIES)


@pytest.fixture(autouse=True)
def _mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def _model(family, relaxed=True, **options):
    model = MODELS.build(detector_config(family, relaxed, **options))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = options.get('dropout', 0.0)
    return model.train()


def _prepared(model, **options):
    """Features and samples of a training step."""
    data = model.data_preprocessor(drawn_batch(**options), training=True)
    return model.extract_feat(data['inputs']), data['data_samples']


def _losses(model, seed=3, **options):
    data = model.data_preprocessor(drawn_batch(**options), training=True)
    torch.manual_seed(seed)
    return model(**data, mode='loss')


def _pair(family, relaxed_options, **options):
    """mmdet's model, and ours with the same weights."""
    plain = _model(family, relaxed=False, **options)
    ours = _model(family, relaxed=False, **options, **relaxed_options)
    keys = ours.load_state_dict(plain.state_dict(), strict=False)
    assert not keys.unexpected_keys and all('.remask.' in key for key in keys.missing_keys)
    return plain, ours


@pytest.mark.parametrize('dropout', [0.0, 0.3])
@pytest.mark.parametrize('reclass', [None, dict(type='ReClass', smoothing=0.0)])
@both
def test_loss__is_mmdets_without_relaxations(family, reclass, dropout):
    loss_cls = dict(type='SoftTargetCrossEntropyLoss', loss_weight=2.0, class_weight=[1.0] * K + [0.1])
    plain, ours = _pair(
        family, dict(type=f'ReMaX{family}Head', loss_cls=loss_cls, reclass=reclass), dropout=dropout)
    assert type(ours.panoptic_head) is not type(plain.panoptic_head)
    expected, losses = _losses(plain), _losses(ours)
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
def test_loss__terms(family):
    model = _model(family)
    losses = _losses(model)
    early = 3 if family == 'Mask2Former' else 2
    names = {'loss_cls', 'loss_mask', 'loss_dice'}
    assert set(losses) == names | {'loss_sem'} | {f'd{i}.{name}' for i in range(early) for name in names}
    sum(losses.values()).backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    # mmdet's level embedding and queries all learn; so does the semantic head.
    assert not idle


def _reference_relaxed(masks, class_logits, sem_logits):
    """Eq. 1 and 2 of ReMaX for one image, slot by slot."""
    relaxed = torch.empty_like(masks)
    for n, y, x in itertools.product(*map(range, masks.shape)):
        gate = 0.
        for k in range(class_logits.shape[1] - 1):
            gate += 1 / (1 + math.exp(-class_logits[n, k])) / (1 + math.exp(-sem_logits[k, y, x]))
        relaxed[n, y, x] = masks[n, y, x] * (1 + gate)
    return relaxed


@pytest.mark.parametrize('num_stuff', [2, 0])
@both
def test_relaxed_outputs__loops(family, num_stuff):
    model = _model(family, num_things=5 - num_stuff, num_stuff=num_stuff).double()
    head = model.panoptic_head
    torch.nn.init.normal_(head.remask.semantic_head.classifier.conv.weight)  # or all pixels are alike
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
        for image in range(2):
            expected = _reference_relaxed(mask_logits[index][image], class_logits[index][image],
                                          sem_logits[image])
            torch.testing.assert_close(prediction.relaxed_mask_logits[image], expected)


@both
def test_loss__relaxed_masks_are_supervised_and_the_others_matched(family):
    """Each output's terms are mmdet's of the relaxed masks, with the matching of the un-relaxed ones."""
    model, plain = _model(family), _model(family, relaxed=False).panoptic_head
    head = model.panoptic_head
    head.reclass = None
    features, samples = _prepared(model)
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
    """The class loss of an output, row by row, from the matching that mmdet makes."""
    model = _model(family)
    head = model.panoptic_head
    features, samples = _prepared(model)
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
        if label == K:  # not matched: no object, and nothing else
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
    """Targets that no other module gives: every matched query is void."""

    def forward(self, class_targets, mask_logits, sem_seg):
        assert class_targets.shape[:2] == mask_logits.shape[:2] and sem_seg.shape[1:] == mask_logits.shape[2:]
        return torch.zeros_like(class_targets).index_fill(-1, torch.tensor(K), 1.)


@both
def test_loss__takes_the_targets_of_a_registered_child_of_reclass(family):
    head = _model(family, reclass=dict(type='VoidEverywhere')).panoptic_head
    outputs = head.relaxed_outputs(*_prepared(_model(family)))
    prediction = outputs.predictions[0]
    metas = [
        dict(mask_logits=masks, sem_seg=sem_seg)
        for masks, sem_seg in zip(prediction.mask_logits, outputs.sem_seg)
    ]
    labels, class_targets = head.get_targets(
        list(prediction.class_logits), list(prediction.mask_logits), outputs.gt_instances, metas)[:2]
    assert sum(int((row < K).sum()) for row in labels) == 8  # matched queries, which would have a class
    assert all((targets[:, :K] == 0).all() and (targets[:, K] == 1).all() for targets in class_targets)


@both
def test_loss__panoptic_terms_do_not_reach_the_semantic_head(family):
    model = _model(family)
    semantic_head = list(model.panoptic_head.remask.parameters())
    losses = _losses(model)
    panoptic = sum(loss for name, loss in losses.items() if name != 'loss_sem')
    gradients = torch.autograd.grad(panoptic, semantic_head, retain_graph=True, allow_unused=True)
    assert all(gradient is None for gradient in gradients)

    # Its own loss reaches it, and through the pixel feature the pixel decoder and the backbone.
    behind = [model.panoptic_head.pixel_decoder.mask_feature.weight, model.backbone.conv1.weight]
    gradients = torch.autograd.grad(losses['loss_sem'], semantic_head + behind)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


@both
def test_loss__masks_do_not_reach_the_classes(family):
    model = _model(family)
    losses = _losses(model)
    masks = sum(loss for name, loss in losses.items() if 'mask' in name or 'dice' in name)
    gradient, = torch.autograd.grad(masks, [model.panoptic_head.cls_embed.weight], allow_unused=True)
    assert gradient is None


@both
def test_state_dict__mmdets_names(family):
    plain = MODELS.build(detector_config(family, relaxed=False)).state_dict()
    ours = MODELS.build(detector_config(family, relaxed=True))
    extra = set(ours.state_dict()) - set(plain)
    assert set(plain) <= set(ours.state_dict())
    assert extra and all(key.startswith('panoptic_head.remask.semantic_head.') for key in extra)
    assert set(inference_copy(ours).state_dict()) == set(plain)


@both
def test_predict__is_mmdets_bit_for_bit(family):
    plain, ours = _model(family, relaxed=False).eval(), _model(family).eval()
    torch.nn.init.normal_(plain.panoptic_head.cls_embed.weight)  # or every query says no object
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


def test_loss__in_eval_nothing_is_relaxed():
    model = _model('Mask2Former').eval()
    plain = _model('Mask2Former', relaxed=False).eval()
    plain.load_state_dict(inference_copy(model).state_dict())
    losses, expected = _losses(model), _losses(plain)
    assert set(losses) == set(expected)
    assert all(torch.equal(losses[name], expected[name]) for name in losses)


@pytest.mark.parametrize('family, num_layers, expected', [('Mask2Former', 9, 6), ('MaskFormer', 6, 4),
                                                          ('Mask2Former', 3, 2), ('MaskFormer', 3, 2)])
def test_num_relaxed__two_thirds_of_the_layers(family, num_layers, expected):
    head = MODELS.build(detector_config(family, True, num_layers=num_layers)).panoptic_head
    assert head.num_relaxed == expected


@pytest.mark.parametrize('family, most', [('Mask2Former', 3), ('MaskFormer', 2)])
def test_num_relaxed__never_the_last_output(family, most):
    model = _model(family, num_relaxed=most)
    predictions = model.panoptic_head.relaxed_outputs(*_prepared(model)).predictions
    assert [p.relaxed_mask_logits is not None for p in predictions] == [True] * most + [False]
    for wrong in (0, most + 1):
        with pytest.raises(ValueError, match=f'from 1 to {most}'):
            MODELS.build(detector_config(family, True, num_relaxed=wrong))


def test_num_relaxed__is_not_asked_for_without_remask():
    # Of one layer there is no output before the last.
    head = MODELS.build(detector_config('MaskFormer', True, num_layers=1, remask=None, loss_sem=None))
    assert head.panoptic_head.num_relaxed == 0
    with pytest.raises(ValueError, match='from 1 to 0'):
        MODELS.build(detector_config('MaskFormer', True, num_layers=1))


@pytest.mark.parametrize('num_stuff, wrong', [(2, 6), (2, 4), (0, 5)])
def test_loss__semantic_head_of_another_number_of_classes(num_stuff, wrong):
    config = detector_config('MaskFormer', True, num_things=5 - num_stuff, num_stuff=num_stuff)
    config.panoptic_head.remask.semantic_head.num_classes = wrong
    with pytest.raises(ValueError, match=f'but got {wrong}'):
        _losses(MODELS.build(config).train())


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
def test_loss__samples_of_mmdets_own_pipeline(family):
    model = _model(family)
    data = MODELS.build(
        dict(type='DetDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, pad_mask=True,
             pad_seg=True))(mmdet_samples(drawn_batch(), panoptic=True), training=True)  # yapf: disable
    torch.manual_seed(3)
    losses, expected = model(**data, mode='loss'), _losses(model)
    assert all(torch.equal(losses[name], expected[name]) for name in expected)


def test_loss__instances_alone():
    """COCO instances: no semantic map in the samples, and what no instance covers is background."""
    model = _model('Mask2Former', num_things=5, num_stuff=0)
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
def test_loss_sem__void_is_left_out(family):
    model = _model(family)
    outputs = model.panoptic_head.relaxed_outputs(*_prepared(model))
    labels = outputs.sem_seg
    assert (labels == K).any()
    terms = -outputs.sem_logits.log_softmax(1).gather(1, labels.clamp(max=K - 1)[:, None])[:, 0]
    expected = terms[labels < K].mean()
    assert _losses(model)['loss_sem'].item() == pytest.approx(expected.item(), rel=1e-5)


@both
def test_loss__images_of_void_alone(family):
    model = _model(family)
    batch = drawn_batch()
    for sample in batch['data_samples']:
        sample.gt_panoptic_seg.segment_map.zero_()
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    assert all(torch.isfinite(loss) for loss in losses.values()) and losses['loss_sem'] == 0
    sum(losses.values()).backward()


@both
def test_loss__mixed_precision_is_finite_and_close(family):
    model = _model(family)
    expected = _losses(model)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = _losses(model)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32 and torch.isfinite(loss)
        assert loss.item() == pytest.approx(expected[name].item(), rel=0.2, abs=0.1), name
    sum(losses.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@both
def test_training__goes_on_from_a_state_dict(family):

    def build():
        model = _model(family)
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


def test_head__ground_truth_remask_needs_no_semantic_head():
    model = _model('Mask2Former', remask=dict(type='GroundTruthReMask'), loss_sem=None)
    outputs = model.panoptic_head.relaxed_outputs(*_prepared(model))
    factor = outputs.predictions[0].relaxed_mask_logits / outputs.predictions[0].mask_logits
    void = (outputs.sem_seg == K)[:, None].expand_as(factor)
    torch.testing.assert_close(factor[void], torch.ones_like(factor[void]))
    assert (factor[~void] > 1).all()
    assert 'loss_sem' not in _losses(model)


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
