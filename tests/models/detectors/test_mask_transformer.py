import copy
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData
from torch import nn

from remax_mm.models.detectors import finite_losses
from remax_mm.models.layers.axial_attention import AxialAttention1d
from remax_mm.models.losses import PanopticCriterion
from remax_mm.structures import MaskPrediction
from tests.random_statistics import randomize_norms
from tests.tiny_model import NUM_CLASSES, NUM_SLOTS, NUM_THINGS, detector_config

SIZES = ((49, 65), (65, 50))


@pytest.fixture(autouse=True)
def _mmdet_scope():
    # mmengine's base model builds the data preprocessor in the default scope, which a runner sets.
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def _model(**options):
    return randomize_norms(MODELS.build(detector_config(**options)))


def _batch(training):
    """Two images as from a data loader; the second was resized to half its original size."""
    inputs, samples = [], []
    for index, (height, width) in enumerate(SIZES):
        sample = DetDataSample(
            metainfo=dict(
                img_id=index,
                img_path=f'{index}.jpg',
                img_shape=(height, width),
                ori_shape=(height * (index + 1), width * (index + 1))))
        if training:
            segment_map = torch.ones(1, height, width, dtype=torch.uint8)
            segment_map[..., 20:] = 2
            segment_map[:, 30:] = 3
            sample.gt_panoptic_seg = PixelData(segment_map=segment_map)
            sample.gt_segments = InstanceData(
                labels=torch.tensor([0, 2, 4]), is_thing=torch.tensor([True, True, False]))
        inputs.append(torch.randint(0, 256, (3, height, width), dtype=torch.uint8))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize('relaxed', [True, False])
def test_kmax_deeplab__loss(relaxed):
    model = _model(relaxed=relaxed)
    data = model.data_preprocessor(_batch(training=True), training=True)
    losses = model(**data, mode='loss')
    names = {'loss_cls', 'loss_mask_id', 'loss_dice', 'loss_insdis'}
    expected = names | {'loss_sem'} | {f'd{layer}.{name}' for layer in range(3) for name in names}
    assert set(losses) == expected | ({'d0.loss_sem', 'd1.loss_sem'} if relaxed else set())

    # mmengine's total loss is the sum of all terms.
    total, _ = model.parse_losses(losses)
    torch.testing.assert_close(total, sum(losses.values()))
    total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_kmax_deeplab__predict():
    model = _model().eval()
    with torch.no_grad():
        results = model.test_step(_batch(training=False))
    assert len(results) == 2
    for index, (result, (height, width)) in enumerate(zip(results, SIZES)):
        size = (height * (index + 1), width * (index + 1))
        panoptic = result.pred_panoptic_seg.sem_seg
        assert panoptic.shape == (1, *size)
        listed = {info['id'] for info in result.pred_panoptic_seg.metainfo['segments_info']}
        assert listed and set(panoptic.unique().tolist()) - {NUM_CLASSES} == listed

        instances = result.pred_instances
        assert instances.masks.shape == (len(instances), *size)
        assert len(instances) > 0 and instances.labels.max() < NUM_THINGS
        assert result.pred_sem_seg.sem_seg.shape == (1, *size)
        assert result.img_id == index


def test_kmax_deeplab__predict_equals_forward_and_fusion():
    model = _model().eval()
    with torch.no_grad():
        data = model.data_preprocessor(_batch(training=False))
        final = model(data['inputs'], mode='tensor')[-1]
        expected = model.panoptic_fusion_head.predict(
            final.class_logits, final.mask_logits, data['data_samples'], rescale=True)
        results = model(**data, mode='predict')
    for result, reference in zip(results, expected):
        assert torch.equal(result.pred_panoptic_seg.sem_seg, reference['pan_results'].sem_seg)
        assert torch.equal(result.pred_instances.masks, reference['ins_results'].masks)
        assert torch.equal(result.pred_sem_seg.sem_seg, reference['sem_results'].sem_seg)


def test_kmax_deeplab__returns_only_enabled_results():
    config = detector_config()
    config['test_cfg'] = dict(panoptic_on=False, semantic_on=True)
    result = MODELS.build(config).eval().test_step(_batch(training=False))[0]
    assert 'pred_sem_seg' in result
    assert 'pred_panoptic_seg' not in result and 'pred_instances' not in result


def test_kmax_deeplab__tensor():
    predictions = _model().eval()(torch.randn(2, 3, 65, 97), mode='tensor')
    assert isinstance(predictions, list) and all(isinstance(p, MaskPrediction) for p in predictions)
    assert [tuple(p.mask_logits.shape[-2:]) for p in predictions] == [(3, 4), (5, 7), (9, 13), (17, 25)]
    assert predictions[-1].class_logits.shape == (2, NUM_SLOTS, NUM_CLASSES + 1)


@pytest.mark.parametrize('wrap', [dict, ConfigDict])
def test_kmax_deeplab__does_not_change_its_config(wrap):
    config = wrap(detector_config())
    before = copy.deepcopy(config)
    model = MODELS.build(config)
    assert config == before
    assert (model.num_things_classes, model.num_classes) == (NUM_THINGS, NUM_CLASSES)
    assert model.panoptic_fusion_head.test_cfg['thing_threshold'] == 0.0


def test_kmax_deeplab__unknown_keys_are_errors():
    config = detector_config()
    config['test_cfg']['object_mask_thr'] = 0.8
    with pytest.raises(ValueError, match='object_mask_thr'):
        MODELS.build(config)
    config = detector_config()
    config['panoptic_head']['num_queries'] = 100
    with pytest.raises(TypeError, match='num_queries'):
        MODELS.build(config)


def test_kmax_deeplab__loss_that_is_not_finite():
    model = _model()
    data = model.data_preprocessor(_batch(training=True), training=True)
    torch.nn.init.constant_(model.panoptic_head.semantic_head.classifier.conv.bias, float('nan'))
    with pytest.raises(FloatingPointError, match=r"but got loss_sem = nan in .*'0.jpg', '1.jpg'"):
        model(**data, mode='loss')


@pytest.mark.parametrize('in_training', [False, True])
def test_kmax_deeplab__checks_losses_of_a_gpu_later(in_training, monkeypatch):
    model, waited = _model(), []
    event = SimpleNamespace(synchronize=lambda: waited.append(True))
    monkeypatch.setattr(finite_losses, 'copy_to_host', lambda sums: (sums * float('nan'), event))
    data = model.data_preprocessor(_batch(training=True), training=True)
    model(**data, mode='loss')
    model.train()
    assert not waited
    with pytest.raises(FloatingPointError, match='loss_cls = nan'):
        model(**data, mode='loss') if in_training else model.eval()
    assert len(waited) == 1


def test_kmax_deeplab__logits_that_are_not_finite():
    model = _model()
    data = model.data_preprocessor(_batch(training=True), training=True)
    torch.nn.init.constant_(model.panoptic_head.transformer_decoder.predictor.class_head.conv.bias,
                            float('nan'))
    with pytest.raises(FloatingPointError, match=r"class similarity of image 0 .*'0.jpg', '1.jpg'"):
        model(**data, mode='loss')


@pytest.mark.parametrize('num_things, num_stuff', [(5, 0), (0, 5)])
def test_kmax_deeplab__things_or_stuff_only(num_things, num_stuff):
    config = detector_config()
    for part in ('panoptic_head', 'panoptic_fusion_head'):
        config[part].update(num_things_classes=num_things, num_stuff_classes=num_stuff)
    model = MODELS.build(ConfigDict(config))
    data = _batch(training=True)
    for sample in data['data_samples']:
        sample.gt_segments.is_thing = torch.full_like(sample.gt_segments.is_thing, num_things > 0)
    losses = model(**model.data_preprocessor(data, training=True), mode='loss')
    assert all(torch.isfinite(loss) for loss in losses.values())
    for result in model.eval().test_step(_batch(training=False)):
        assert all(s['is_thing'] == (num_things > 0) for s in result.pred_panoptic_seg.segments_info)


def test_kmax_deeplab__weights_of_remax_load_into_kmax():
    remax, kmax = _model(relaxed=True), _model(relaxed=False)
    keys = kmax.load_state_dict(remax.state_dict(), strict=False)
    assert not keys.missing_keys and all('.remask.' in key for key in keys.unexpected_keys)
    batch = _batch(training=False)
    ours, theirs = (model.eval().test_step(copy.deepcopy(batch)) for model in (remax, kmax))
    for result, expected in zip(ours, theirs):
        assert torch.equal(result.pred_panoptic_seg.sem_seg, expected.pred_panoptic_seg.sem_seg)


def _losses_and_gradients(**options):
    torch.manual_seed(0)
    model = MODELS.build(dict(detector_config(relaxed=True), **options)).double()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # draws in the order of the memory
    data = model.data_preprocessor(_batch(training=True), training=True)
    losses = model(data['inputs'].double(), data['data_samples'], mode='loss')
    sum(losses.values()).backward()
    return model, losses, {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize('options', [dict(recompute_activations=False), dict(channels_last=True)])
def test_kmax_deeplab__same_losses_and_gradients(options):
    """The options of memory and memory format change nothing else."""
    _, expected_losses, expected = _losses_and_gradients()
    model, losses, gradients = _losses_and_gradients(**options)
    for name, loss in expected_losses.items():
        torch.testing.assert_close(losses[name], loss, rtol=1e-9, atol=1e-9)
    scale = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (gradients[name] - gradient).abs().max() <= 1e-9 * scale, name
    if 'channels_last' in options:
        weights = [parameter for parameter in model.parameters() if parameter.ndim == 4]
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


@pytest.mark.parametrize('recompute, runs', [(True, 2), (False, 1)])
def test_kmax_deeplab__runs_of_what_is_cheap(monkeypatch, recompute, runs):
    counts = Counter()

    def count(owner, name):
        original = getattr(owner, name)

        def counted(*inputs):
            counts[name] += 1
            return original(*inputs)

        monkeypatch.setattr(owner, name, counted)

    count(AxialAttention1d, '_retrieve')
    count(PanopticCriterion, '_mask_losses')
    model, _, _ = _losses_and_gradients(recompute_activations=recompute)
    num_attentions = sum(isinstance(module, AxialAttention1d) for module in model.modules())
    assert counts == {'_retrieve': runs * num_attentions, '_mask_losses': runs * 4}


def test_kmax_deeplab__channels_last_survives_loading():
    model = MODELS.build(dict(detector_config(), channels_last=True))
    model.load_state_dict(MODELS.build(detector_config()).state_dict())
    weight = next(parameter for parameter in model.parameters()
                  if parameter.ndim == 4 and parameter.shape[2] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
