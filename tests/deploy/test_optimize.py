"""An optimized detector gives the results of the detector."""
import copy

import pytest
import torch
from mmcv.cnn.bricks import DropPath
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from remax_mm.deploy.inference_kmax import InferenceDecoderLayer, InferenceKMaXHead
from remax_mm.deploy.inference_layers import InferenceBlock
from remax_mm.deploy.onednn import OneDNNConv, OneDNNMaskPredictor
from remax_mm.deploy.optimize import optimize_for_inference
from remax_mm.models.inference_copy import inference_copy
from remax_mm.models.layers import AxialBlock, BasicBlock, BottleneckBlock
from tests.conftest import REPOSITORY
from tests.mask_former_config import SIDE, small_model
from tests.random_statistics import randomize_norms
from tests.tiny_model import detector_config

SIZE = (65, 65)


@pytest.fixture(autouse=True)
def _mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def _detector(name='kmax', **options):
    config = detector_config(
        drop_path_rate=0.2, **options) if name == 'kmax' else Config.fromfile(
            REPOSITORY / 'configs' / 'mini' / 'max-deeplab-s_1xb8-1k_mini-129.py').model
    return randomize_norms(MODELS.build(config)).eval()


def _batch(size=SIZE):
    sample = DetDataSample(metainfo=dict(img_path='drawn', img_shape=size, ori_shape=(48, 60)))
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return dict(inputs=[image], data_samples=[sample])


def _logits(model, images):
    with torch.no_grad():
        return model.panoptic_head.predict(model.extract_feat(images), None)


def _assert_same_logits(model, optimized, images):
    for found, expected in zip(_logits(optimized, images), _logits(model, images)):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('name, channels_last', [('kmax', True), ('max_deeplab', True),
                                                 pytest.param('kmax', False, marks=pytest.mark.slow),
                                                 pytest.param('max_deeplab', False, marks=pytest.mark.slow)])
def test_optimize__logits(name, channels_last):
    model = _detector(name).double()
    before = copy.deepcopy(model.state_dict())
    optimized = optimize_for_inference(model, channels_last=channels_last)
    for shape in ((1, 3, 65, 65), (2, 3, 33, 97)):
        _assert_same_logits(model, optimized, torch.randn(shape, dtype=torch.float64))

    report = optimized.panoptic_head.report
    assert not report.kept and len(report.folded) > 50 and report.max_difference < 1e-7
    # The detector itself is as before.
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.panoptic_head.criterion is not None


@pytest.mark.parametrize('name, channels_last', [('kmax', True), ('max_deeplab', True),
                                                 pytest.param('kmax', False, marks=pytest.mark.slow)])
def test_optimize__logits_by_onednn(name, channels_last):
    model = _detector(name)
    optimized = optimize_for_inference(model, channels_last=channels_last)
    assert any(isinstance(module, OneDNNConv) for module in optimized.modules())
    for shape in ((1, 3, 65, 65), (2, 3, 33, 97)):
        images = torch.randn(shape)
        for found, expected in zip(_logits(optimized, images), _logits(model, images)):
            # The random norms of MaX-DeepLab amplify the rounding of float32 in single values.
            assert (found - expected).norm() < 1e-4 * expected.norm()


def test_optimize__removes_what_inference_does_not_need():
    optimized = optimize_for_inference(_detector())
    kinds = {type(module) for module in optimized.modules()}
    assert not kinds & {DropPath, nn.Dropout, nn.BatchNorm1d, nn.BatchNorm2d, AxialBlock, BottleneckBlock}
    assert not [name for name, _ in optimized.named_modules() if 'semantic' in name or 'criterion' in name]
    assert {InferenceKMaXHead, InferenceBlock, OneDNNConv, OneDNNMaskPredictor} <= kinds
    assert not kinds & {nn.Conv1d, nn.Conv2d}
    assert not any(parameter.requires_grad for parameter in optimized.parameters())
    assert not any(module.training for module in optimized.modules())


def _fit_statistics(model):
    """Give the batch norms the statistics of the test image, so that its features and masks vary."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 1.
    with torch.no_grad():
        model.train()(**model.data_preprocessor(_batch()), mode='tensor')
    return model.eval()


def test_optimize__results_of_test_step():
    counts = []
    for seed in range(4):
        torch.manual_seed(seed)
        model = _fit_statistics(_detector().double())  # rounding of float32 may change single pixels
        expected, = inference_copy(model).requires_grad_(False).test_step(_batch())
        found, = optimize_for_inference(model).test_step(_batch())
        assert torch.equal(found.pred_panoptic_seg.sem_seg, expected.pred_panoptic_seg.sem_seg)
        assert torch.equal(found.pred_sem_seg.sem_seg, expected.pred_sem_seg.sem_seg)
        torch.testing.assert_close(found.pred_instances.scores, expected.pred_instances.scores)
        counts.append(len(expected.pred_panoptic_seg.sem_seg.unique()))
    assert max(counts) > 1


@pytest.mark.parametrize('block', [
    AxialBlock(6, 8),
    AxialBlock(32, 8),
    AxialBlock(6, 8, stride=2),
    AxialBlock(32, 8, stride=2),
    BottleneckBlock(6, 8),
    BottleneckBlock(32, 8, act_cfg=dict(type='ReLU')),
    BasicBlock(6, 8),
    BasicBlock(32, 8, stride=2)
])
def test_inference_block__values_of_the_block(block):
    from remax_mm.deploy.fold_batch_norms import fold_batch_norms
    model = randomize_norms(nn.Sequential(block)).double().eval()
    x = torch.randn(
        2, block.reduce.conv.in_channels if hasattr(block, 'reduce') else block.first.conv.in_channels, 9,
        7).double()
    with torch.no_grad():
        expected = model(x)
        fold_batch_norms(model, x)
        kept = x.clone()
        torch.testing.assert_close(
            InferenceBlock(model[0], overwrite=False)(x), expected, rtol=1e-9, atol=1e-9)
        assert torch.equal(x, kept)
        torch.testing.assert_close(
            InferenceBlock(model[0], overwrite=True)(x), expected, rtol=1e-9, atol=1e-9)


def test_inference_decoder_layer__slots_of_the_layer():
    """Also where a slot has no pixel, and with a negative scale of the masks."""
    model = _detector(relaxed=False).double()
    for layer in model.panoptic_head.transformer_decoder.layers:
        nn.init.constant_(layer.predictor.mask_norm.weight, -0.7)
    optimized = optimize_for_inference(model)
    layer = optimized.panoptic_head.head.layers[0]
    assert isinstance(layer, InferenceDecoderLayer)
    slots = torch.randn(2, 16, 6, dtype=torch.float64)
    feature = torch.randn(2, 64, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        expected, prediction = model.panoptic_head.transformer_decoder.layers[0](slots, feature)
        assert any(len(owner.unique()) < 6 for owner in prediction.mask_logits.argmax(1))
        found = layer(slots, torch.nn.functional.gelu(feature))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize('options', [
    dict(norm_cfg=dict(type='GN', num_groups=4)),
    dict(remask=dict(type='ReMaskAtTest', semantic_head=dict(type='StageSemanticHead', aspp_channels=8)))
])
def test_optimize__keeps_a_head_that_it_cannot_simplify(options):
    model = _detector(**options).double()
    optimized = optimize_for_inference(model)
    assert not isinstance(optimized.panoptic_head.head, InferenceKMaXHead)
    _assert_same_logits(model, optimized, torch.randn(1, 3, 65, 65, dtype=torch.float64))


@pytest.mark.slow
@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-6), (torch.float32, 1e-4)])
@pytest.mark.parametrize('family', ['Mask2Former', 'MaskFormer'])
def test_optimize__heads_of_mmdet(family, dtype, tolerance):
    model = randomize_norms(small_model(family)).to(dtype).eval()
    optimized = optimize_for_inference(model)
    assert any(isinstance(module, OneDNNConv) for module in optimized.modules()) == (dtype == torch.float32)
    size = (SIDE, SIDE)
    samples = [DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, batch_input_shape=size))]
    images = torch.randn(1, 3, *size, dtype=dtype)
    with torch.no_grad():
        expected = model.panoptic_head.predict(model.extract_feat(images), samples)
        found = optimized.panoptic_head.predict(optimized.extract_feat(images), samples)
    for one, other in zip(found, expected):  # mmdet computes positions in float32
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    assert optimized.panoptic_head.report.folded


@pytest.mark.parametrize(
    'wrapper', [dict(type='TiledPanopticModel', tile_size=65, overlap=16),
                dict(type='PanopticTTAModel')])
def test_optimize__wrapped_detector(wrapper):
    model = _detector()
    model.test_cfg.update(instance_on=False, semantic_on=False)
    model.panoptic_fusion_head.test_cfg.update(instance_on=False, semantic_on=False)
    wrapped = MODELS.build(dict(wrapper, module=model)).eval()
    size = (80, 100)
    batch = _batch(size)
    batch['data_samples'][0].set_metainfo(dict(ori_shape=size))
    if wrapper['type'] == 'PanopticTTAModel':
        batch = _batch()
        flipped = copy.deepcopy(batch)
        flipped['data_samples'][0].set_metainfo(dict(flip=True, flip_direction='horizontal'))
        batch = {key: [batch[key], flipped[key]] for key in batch}
    optimized = optimize_for_inference(wrapped)
    assert optimized.module.panoptic_head.report.folded and not hasattr(wrapped.module.panoptic_head,
                                                                        'report')
    expected, = wrapped.test_step(copy.deepcopy(batch))
    found, = optimized.test_step(batch)
    assert torch.equal(found.pred_panoptic_seg.sem_seg, expected.pred_panoptic_seg.sem_seg)


@pytest.mark.slow
def test_optimize__half_precision():
    model = _detector()
    optimized = optimize_for_inference(model, dtype=torch.bfloat16)
    images = torch.randn(1, 3, *SIZE)
    types = []
    conv = next(module for module in optimized.modules() if type(module) is nn.Conv2d)
    conv.register_forward_hook(lambda module, inputs, output: types.append(output.dtype))
    found, expected = _logits(optimized, images), _logits(model, images)
    assert types == [torch.bfloat16]
    for one, other in zip(found, expected):
        assert one.dtype == torch.float32
        # bfloat16 has 8 bits, and its errors grow with the depth of the network.
        assert (one - other).std() < 0.1 * other.std()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['kmax', 'max_deeplab'])
def test_compile__whole_network_is_one_graph(name):
    network = optimize_for_inference(_detector(name), compile=True).panoptic_head
    torch._dynamo.reset()
    with torch.no_grad():
        found = torch._dynamo.explain(network.forward)(torch.randn(1, 3, *SIZE))
    assert (found.graph_count, found.graph_break_count) == (1, 0)


@pytest.mark.slow
def test_compile__same_logits():
    model = _detector()
    optimized = optimize_for_inference(model, compile=True)
    for _ in range(2):
        images = torch.randn(1, 3, *SIZE)
        for found, expected in zip(_logits(optimized, images), _logits(model, images)):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_optimize__wrong_models():
    with pytest.raises(TypeError, match="like mmdet's MaskFormer, .* but got Sequential"):
        optimize_for_inference(nn.Sequential())
    optimized = optimize_for_inference(_detector())
    with pytest.raises(TypeError, match='not optimized, but got one that is'):
        optimize_for_inference(optimized)
    with pytest.raises(ValueError, match='to compile, because .* of ReMaXMaskFormerHead is not one graph'):
        optimize_for_inference(small_model('MaskFormer'), compile=True)
    with pytest.raises(ValueError, match='None, torch.bfloat16 or torch.float16, but got torch.int8'):
        optimize_for_inference(_detector(), dtype=torch.int8)
