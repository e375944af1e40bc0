"""Conversion of TensorFlow's kMaX-DeepLab, with the variables of tests/deeplab2_variables.py."""
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from remax_mm.analysis.complexity import count_parameters
from remax_mm.model_converters import convert_deeplab2
from remax_mm.model_converters.convert_deeplab2 import build_model, default_config, read_variables
from remax_mm.model_converters.converted_checkpoint import fit_weights
from remax_mm.model_converters.deeplab2_variables import SUFFIX, convert_variables
from remax_mm.models.inference_copy import inference_copy
from tests import deeplab2_network
from tests.conftest import REPOSITORY
from tests.deeplab2_variables import SMALL, convnext, kmax_deeplab, numbered, randomized, resnet

CONFIGS = REPOSITORY / 'configs'
KMAX = CONFIGS / 'kmax'
MAX_S_CONFIG = KMAX / 'kmax_max-s_8xb8-150k_coco-1281.py'
CLASS_HEAD = 'transformer_class_head/_conv/bias'
SEMANTIC_HEAD = 'semantic_last_layer/bias'
OUR_CLASS_HEAD = 'panoptic_head.transformer_decoder.predictor.class_head.conv.bias'
OUR_SEMANTIC_HEAD = 'panoptic_head.semantic_head.classifier.conv.bias'
TINY = ((3, 3, 9, 3), (96, 192, 384, 768))
LARGE = ((3, 3, 27, 3), (192, 384, 768, 1536))


def _fitted(variables, config=None):
    """Converted weights, and the model that they fit, on the meta device."""
    converted = convert_variables(variables)
    config = default_config(converted, CONFIGS) if config is None else config
    model = build_model(config, converted.encoder)
    return fit_weights(converted.weights, model, 'the test'), model


@pytest.mark.parametrize('encoder, classes, config, parameters', [
    (resnet('max_s', 64), 133, MAX_S_CONFIG, 74_415_512),
    (resnet('max_s', 64), 19, KMAX / 'kmax_max-s_8xb4-60k_cityscapes-1025x2049.py', 74_238_714),
    (resnet('resnet50', 64), 133, KMAX / 'kmax_r50-deeplab2_8xb8-150k_coco-1281.py', 56_580_120),
    (convnext(*TINY), 133, KMAX / 'kmax_convnext-t_8xb8-150k_coco-1281.py', 60_937_080),
    pytest.param(resnet('resnet50', 64), 150, None, 56_610_703, marks=pytest.mark.slow),
    pytest.param(resnet('resnet50', 64), 19, None, 56_401_146, marks=pytest.mark.slow),
    pytest.param(convnext(*LARGE), 133, None, 231_836_952, marks=pytest.mark.slow),
])
def test_convert_variables__fills_the_model_once_each(encoder, classes, config, parameters):
    variables = numbered(kmax_deeplab(encoder, classes))
    weights, model = _fitted(variables, config and Config.fromfile(config))
    assert count_parameters(inference_copy(model)) == parameters
    model.load_state_dict(weights, strict=True, assign=True)

    # Every variable is filled with its own number, and all numbers are in the weights.
    values = [value.flatten() for name, value in weights.items() if 'num_batches_tracked' not in name]
    assert all((value == value[0]).all() for value in values)
    assert sorted(value[0].item() for value in values) == list(range(1, len(variables) + 1))


def _small_config(classes):
    """MaX-S with the widths of ``SMALL``."""
    config = Config.fromfile(MAX_S_CONFIG if classes == 133 else KMAX /
                             'kmax_max-s_8xb4-60k_cityscapes-1025x2049.py')
    config.model.backbone.channels = [8, 16, 32, 64]
    stages, finest = [32, 64, 128, 256], [] if classes == 133 else [32]
    head = config.model.panoptic_head
    head.in_channels = ([128] if finest else []) + stages
    head.pixel_decoder.channels = [*SMALL.filters, *finest]
    head.transformer_decoder.update(
        channels=SMALL.channels, ffn_channels=SMALL.ffn, embedding_channels=SMALL.embedding)
    if finest:
        head.semantic_head.channels = SMALL.aspp
    else:
        head.transformer_decoder.num_slots = SMALL.slots
        head.semantic_head.aspp_channels = SMALL.aspp
    return config


def _trained(variables, config=None):
    """A model with the weights, in float64."""
    weights, model = _fitted(variables, config)
    model = model.to_empty(device='cpu')
    model.load_state_dict(weights)
    return model.double().eval()


def _as_torch(array):
    return torch.from_numpy(np.moveaxis(array, -1, 1))


@pytest.fixture(scope='module')
def image():
    return np.random.RandomState(1).randn(2, 65, 33, 3)


@pytest.mark.parametrize('classes', [133, 19])
def test_convert_variables__computes_what_deeplab2_computes(image, classes):
    variables = randomized(kmax_deeplab(resnet('max_s', SMALL.base), classes, SMALL))
    model = _trained(variables, _small_config(classes))
    v = {name: array.astype(np.float64) for name, array in variables.items()}
    features = deeplab2_network.resnet(v, image)
    expected = deeplab2_network.kmax_deeplab(v, features if classes == 19 else features[1:])
    # Things 11 to 18 of Cityscapes come before its stuff in the class heads of both.
    semantic_rows = range(1, 134) if classes == 133 else [*range(11, 19), *range(11)]
    expected_semantic = deeplab2_network.semantic_logits(v, features[1:])[..., semantic_rows]

    with torch.no_grad():
        predictions = model(_as_torch(image), mode='tensor')
        semantic = model.panoptic_head.semantic_head(model.backbone(_as_torch(image)))
    torch.testing.assert_close(semantic, _as_torch(expected_semantic), rtol=1e-6, atol=1e-6)
    assert len(predictions) == len(expected) == 7
    for ours, theirs in zip(predictions, expected):
        torch.testing.assert_close(
            ours.class_logits, torch.from_numpy(theirs.class_logits), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.pixel_feature, _as_torch(theirs.pixel_feature), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.mask_logits, _as_torch(theirs.mask_logits), rtol=1e-6, atol=1e-6)
        assert ours.mask_logits.std(dim=(2, 3)).mean() > 0.1


@pytest.mark.parametrize('encoder, forward', [
    (resnet('resnet50', 64), deeplab2_network.resnet),
    (convnext(*TINY), deeplab2_network.convnext),
])
def test_convert_variables__encoders_compute_what_deeplab2s_do(image, encoder, forward):
    variables = randomized(encoder[0])
    converted = convert_variables({**variables, CLASS_HEAD: np.zeros(134)})
    backbone = MODELS.build(default_config(converted, CONFIGS).model.backbone)
    weights = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    assert converted.weights.keys() - weights.keys() == {OUR_CLASS_HEAD}
    weights = {name[len('backbone.'):]: converted.weights.get(name, value) for name, value in weights.items()}
    backbone.load_state_dict(weights)
    backbone.double().eval()
    v = {name: array.astype(np.float64) for name, array in variables.items()}
    with torch.no_grad():
        features = backbone(_as_torch(image))
    for ours, theirs in zip(features, forward(v, image)[1:]):
        torch.testing.assert_close(ours, _as_torch(theirs), rtol=1e-6, atol=1e-6)


def _heads(class_outputs, semantic_outputs, marker='encoder/_stem/_conv/kernel'):
    """The variables that identify a dataset and an encoder, and no others."""
    heads = {CLASS_HEAD: class_outputs, SEMANTIC_HEAD: semantic_outputs, marker: np.zeros((7, 7, 3, 64))}
    return {name: np.asarray(array, np.float32) for name, array in heads.items()}


# isthing of deeplab2's data/ade20k_constants.py is 0 for these ids.
ADE20K_STUFF = (1, 2, 3, 4, 5, 6, 7, 10, 12, 14, 17, 18, 22, 26, 27, 29, 30, 35, 41, 47, 49, 52, 53, 55, 60,
                61, 62, 64, 69, 78, 80, 85, 92, 95, 97, 100, 101, 102, 106, 107, 110, 114, 115, 118, 123, 129,
                132, 141, 142, 146)  # yapf: disable
ADE20K_THINGS = tuple(i for i in range(1, 151) if i not in ADE20K_STUFF)


@pytest.mark.parametrize('first_id, things, stuff, spots', [
    (1, range(1, 81), range(81, 134), dict(person=1, bicycle=2, toothbrush=80, banner=81, bridge=83)),
    (1, ADE20K_THINGS, ADE20K_STUFF, dict(bed=8, window=9, flag=150, wall=1, sky=3, shower=146)),
    (0, range(11, 19), range(11), dict(person=11, rider=12, bicycle=18, road=0, sky=10)),
], ids=['coco', 'ade20k', 'cityscapes'])  # yapf: disable
def test_convert_variables__classes_by_name(first_id, things, stuff, spots):
    # Each row of a head has the id of its class as value; void has 999.
    ids = [*things, *stuff]
    converted = convert_variables(_heads([*ids, 999], [*[999] * first_id, *sorted(ids)]))
    class_ids = converted.weights[OUR_CLASS_HEAD].tolist()
    semantic_ids = converted.weights[OUR_SEMANTIC_HEAD].tolist()
    assert class_ids == [*semantic_ids, 999]
    assert sorted(semantic_ids) == sorted(ids) and set(semantic_ids[:len(things)]) == set(things)
    ours = dict(zip(converted.dataset.metainfo['classes'], semantic_ids))
    assert {name: ours[name] for name in spots} == spots


@pytest.mark.parametrize('marker, backbone, stem', [
    ('encoder/_stem/_conv/kernel', 'DeepLab2ResNet', 64),
    ('encoder/_stem/_conv1_bn_act/_conv/kernel', 'AxialResNet', 128),
])
@pytest.mark.parametrize('classes, stages', [(133, 4), (150, 4), (19, 5)])
def test_default_config__of_the_encoder_and_the_dataset(marker, backbone, stem, classes, stages):
    semantic_classes = classes if classes == 19 else classes + 1
    converted = convert_variables(_heads(np.zeros(classes + 1), np.zeros(semantic_classes), marker))
    model = default_config(converted, CONFIGS).model
    assert model.backbone == dict(type=backbone, with_stem=stages == 5)
    head = model.panoptic_head
    assert head.in_channels == [stem, 256, 512, 1024, 2048][-stages:]
    assert head.num_things_classes + head.num_stuff_classes == classes
    assert head.transformer_decoder.num_slots == (256 if classes == 19 else 128)


@pytest.fixture
def target(tmp_path):
    return tmp_path / 'new' / 'ours.pth'


@pytest.fixture
def convert(tmp_path, target):
    """Convert variables, or the bytes of a file; returns the checkpoint that was written."""

    def run(variables, config=None, name='theirs.npz'):
        if isinstance(variables, bytes):
            (tmp_path / name).write_bytes(variables)
        elif variables is not None:
            np.savez(tmp_path / name, **variables)
        convert_deeplab2(tmp_path / name, target, CONFIGS, config)
        return torch.load(target, weights_only=True)

    return run


@pytest.fixture
def refuse(convert, target):
    """Convert something that is refused; returns the message. Nothing is written."""

    def run(*arguments, **options):
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            convert(*arguments, **options)
        assert not target.parent.exists()
        return str(caught.value)

    return run


@pytest.fixture
def small():
    """Variables of a checkpoint, including some that are no weights, and the config that they fit."""
    variables = {
        f'{name}{SUFFIX}': array
        for name, array in numbered(kmax_deeplab(resnet('max_s', SMALL.base), 133, SMALL)).items()
    }
    slot = 'semantic_last_layer/kernel/.OPTIMIZER_SLOT/optimizer/m'
    for name in (slot, 'optimizer/iter', 'backbone_optimizer/iter', 'global_step', 'save_counter'):
        variables[f'{name}{SUFFIX}'] = np.zeros((), np.int64)
    variables['_CHECKPOINTABLE_OBJECT_GRAPH'] = np.array(b'\x08\x01')
    return variables, _small_config(133)


def test_convert_deeplab2__archive(convert, small):
    variables, config = small
    checkpoint = convert(variables, config)
    assert len(checkpoint['state_dict']) == 1685
    assert checkpoint['meta']['source'] == 'theirs.npz' and 'AxialResNet' in checkpoint['meta']['cfg']
    assert len(checkpoint['meta']['dataset_meta']['classes']) == 133
    MODELS.build(config.model).load_state_dict(checkpoint['state_dict'])


def test_read_variables__checkpoint_with_tensorflow(convert, small, tmp_path, monkeypatch):
    variables, config = small
    opened = []

    def load_checkpoint(path):
        opened.append(path)
        return SimpleNamespace(
            get_variable_to_shape_map=lambda: {
                name: list(array.shape)
                for name, array in variables.items()
            },
            get_tensor=variables.__getitem__)

    monkeypatch.setitem(sys.modules, 'tensorflow',
                        SimpleNamespace(train=SimpleNamespace(load_checkpoint=load_checkpoint)))
    (tmp_path / 'ckpt-7.index').touch()
    assert len(convert(None, config, name='ckpt-7')['state_dict']) == 1685
    assert opened == [str(tmp_path / 'ckpt-7')]


def test_read_variables__without_tensorflow(refuse, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow', None)
    (tmp_path / 'ckpt-7.index').touch()
    text = refuse(None, name='ckpt-7')
    assert text.startswith('Expected TensorFlow to read') and 'pip install tensorflow-cpu' in text
    assert '.npz' in text and '--help' in text


def test_fit_weights__lists_what_does_not_fit(refuse, small):
    variables, config = small
    for name in [name for name in variables if name.startswith('encoder/_stage5/_block3/_conv3_bn/')]:
        del variables[name]
    variables[f'encoder/_memory_feature{SUFFIX}'] = np.zeros((1, 128, 256), np.float32)
    kernel = f'encoder/_stem/_conv2_bn_act/_conv/kernel{SUFFIX}'
    variables[kernel] = variables[kernel][..., :32]
    variables[f'pixel_space_head/final_conv/kernel{SUFFIX}'] = np.zeros((32, 16, 1), np.float32)

    text = refuse(variables, config)
    assert text.startswith('Expected the weights in') and 'theirs.npz' in text
    assert '5 are missing:\n  backbone.stages.3.2.expand.conv.weight\n' in text
    assert '1 are unexpected:\n  encoder/_memory_feature;' in text
    assert 'backbone.stem.1.conv.weight (32, 64, 3, 3) instead of (64, 64, 3, 3)' in text
    assert 'pixel_embedding.conv.weight (1, 16, 32) instead of (16, 32, 1, 1)' in text


@pytest.mark.parametrize('change, message', [
    (dict(drop=CLASS_HEAD), f'{CLASS_HEAD} among them, but found 2 others, such as: encoder/'),
    (dict(add={CLASS_HEAD: np.zeros(8)}),
     'head of 134 (COCO), 151 (ADE20K), 20 (Cityscapes) outputs, void included, but found 8'),
    (dict(add={SEMANTIC_HEAD: np.zeros(133)}), f'Expected 134 outputs of {SEMANTIC_HEAD}, but got (133,)'),
    (dict(drop='encoder/_stem/_conv/kernel'), 'among ResNet-50, MaX-S, ConvNeXt, but found none'),
    (dict(add={CLASS_HEAD + SUFFIX: np.zeros(134)}), f'weight once, but {CLASS_HEAD}{SUFFIX} is a second'),
    (dict(add=dict(extra=np.array(['text']))), 'but 1 of 4 variables are not, such as: extra'),
], ids=['no kMaX', 'classes', 'semantic classes', 'encoder', 'twice', 'text'])  # yapf: disable
def test_convert_variables__other_variables(refuse, change, message):
    variables = {**_heads(np.zeros(134), np.zeros(134)), **change.get('add', {})}
    variables.pop(change.get('drop'), None)
    text = refuse(variables)
    assert text.startswith('Expected') and message in text


@pytest.mark.parametrize('name, found', [('kmax_r50_8xb8-150k_coco-1281', 'ResNet'),
                                         ('kmax_max-s_8xb8-150k_coco-1281', 'AxialResNet')])
def test_build_model__another_backbone(name, found):
    # The weights have the names and shapes of the usual ResNet-50.
    converted = convert_variables(_heads(np.zeros(134), np.zeros(134)))
    wanted = f"DeepLab2ResNet, which is deeplab2's ResNet-50, but the config .*{name}.py has {found}$"
    with pytest.raises(ValueError, match=wanted):
        build_model(Config.fromfile(KMAX / f'{name}.py'), converted.encoder)


def test_build_model__config_without_model():
    converted = convert_variables(_heads(np.zeros(134), np.zeros(134)))
    with pytest.raises(ValueError, match='Expected `model` in the config'):
        build_model(Config.fromfile(CONFIGS / '_base_' / 'default_runtime.py'), converted.encoder)


@pytest.mark.parametrize('content, name', [
    (b'', 'theirs.npz'),
    (b'PK\x03\x04 incomplete', 'theirs.npz'),
    (None, 'theirs.npz'),
    (None, 'ckpt-7'),
])
def test_read_variables__damaged_files(refuse, content, name):
    text = refuse(content, name=name)
    assert text.startswith('Expected') and name in text


class _CodeRunner:

    def __reduce__(self):
        return exec, ("open('executed', 'w')", )


def test_read_variables__runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / 'a.npz', extra=np.array([_CodeRunner()], dtype=object))
    with pytest.raises(ValueError, match='cannot be read'):
        read_variables(tmp_path / 'a.npz')
    assert not (tmp_path / 'executed').exists()
