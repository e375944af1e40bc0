"""The converter of TensorFlow's kMaX-DeepLab, on variables written out in tests/deeplab2_variables.py."""
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config

from remax_mm.analysis.complexity import count_parameters
from remax_mm.models.inference_copy import inference_copy
from tests import deeplab2_network
from tests.conftest import REPOSITORY
from tests.deeplab2_variables import SMALL, convnext, kmax_deeplab, numbered, randomized, resnet
from tests.reference_names import CONVERTERS

sys.path.insert(0, str(CONVERTERS))

import deeplab2_to_remax_mm as converter  # noqa: E402
from deeplab2_names import SUFFIX, convert_variables  # noqa: E402

KMAX = REPOSITORY / 'configs' / 'kmax'
MAX_S_CONFIG = KMAX / 'kmax_max-s_8xb8-150k_coco-1281.py'
CLASS_HEAD = 'transformer_class_head/_conv/bias'
SEMANTIC_HEAD = 'semantic_last_layer/bias'
OUR_CLASS_HEAD = 'panoptic_head.transformer_decoder.predictor.class_head.conv.bias'
OUR_SEMANTIC_HEAD = 'panoptic_head.semantic_head.classifier.conv.bias'
TINY = ((3, 3, 9, 3), (96, 192, 384, 768))
LARGE = ((3, 3, 27, 3), (192, 384, 768, 1536))


def _fitted(variables, config=None):
    """What the converter makes of variables, and the model that it is for, on the meta device."""
    converted = convert_variables(variables)
    config = converter.default_config(converted) if config is None else config
    model = converter.build_model(config, converted)
    return converter.fit_weights(converted.weights, model, 'the test'), model


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

    # Every variable carries a number of its own, and all of them have arrived.
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
    backbone = converter.MODELS.build(converter.default_config(converted).model.backbone)
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


def _heads(class_outputs, semantic_outputs, mark='encoder/_stem/_conv/kernel'):
    """As little as tells a dataset and an encoder."""
    heads = {CLASS_HEAD: class_outputs, SEMANTIC_HEAD: semantic_outputs, mark: np.zeros((7, 7, 3, 64))}
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
    # Each row of a head carries the id of its class; void has 999.
    ids = [*things, *stuff]
    converted = convert_variables(_heads([*ids, 999], [*[999] * first_id, *sorted(ids)]))
    class_ids = converted.weights[OUR_CLASS_HEAD].tolist()
    semantic_ids = converted.weights[OUR_SEMANTIC_HEAD].tolist()
    assert class_ids == [*semantic_ids, 999]
    assert sorted(semantic_ids) == sorted(ids) and set(semantic_ids[:len(things)]) == set(things)
    ours = dict(zip(converted.dataset.metainfo['classes'], semantic_ids))
    assert {name: ours[name] for name in spots} == spots


@pytest.mark.parametrize('mark, backbone, stem', [
    ('encoder/_stem/_conv/kernel', 'DeepLab2ResNet', 64),
    ('encoder/_stem/_conv1_bn_act/_conv/kernel', 'AxialResNet', 128),
])
@pytest.mark.parametrize('classes, stages', [(133, 4), (150, 4), (19, 5)])
def test_default_config__is_that_of_the_encoder_and_the_data_set(mark, backbone, stem, classes, stages):
    semantic_classes = classes if classes == 19 else classes + 1
    converted = convert_variables(_heads(np.zeros(classes + 1), np.zeros(semantic_classes), mark))
    model = converter.default_config(converted).model
    assert model.backbone == dict(type=backbone, with_stem=stages == 5)
    head = model.panoptic_head
    assert head.in_channels == [stem, 256, 512, 1024, 2048][-stages:]
    assert head.num_things_classes + head.num_stuff_classes == classes
    assert head.transformer_decoder.num_slots == (256 if classes == 19 else 128)


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys):
    """Runs the command line on variables, or on a file; its text, and what it should have written."""

    def run(variables, *arguments, name='theirs.npz'):
        source, target = tmp_path / name, tmp_path / 'new' / 'ours.pth'
        if isinstance(variables, bytes):
            source.write_bytes(variables)
        elif variables is not None:
            np.savez(source, **variables)
        monkeypatch.setattr(
            'sys.argv',
            ['deeplab2_to_remax_mm.py',
             str(source), str(target), *map(str, arguments)])
        try:
            converter.main()
        except SystemExit as error:
            return str(error), target
        return capsys.readouterr().out, target

    return run


@pytest.fixture
def small(tmp_path):
    """Variables as a checkpoint holds them, beside what is no weight, and the config that they fit."""
    variables = {
        f'{name}{SUFFIX}': array
        for name, array in numbered(kmax_deeplab(resnet('max_s', SMALL.base), 133, SMALL)).items()
    }
    slot = 'semantic_last_layer/kernel/.OPTIMIZER_SLOT/optimizer/m'
    for name in (slot, 'optimizer/iter', 'backbone_optimizer/iter', 'global_step', 'save_counter'):
        variables[f'{name}{SUFFIX}'] = np.zeros((), np.int64)
    variables['_CHECKPOINTABLE_OBJECT_GRAPH'] = np.array(b'\x08\x01')
    config = tmp_path / 'small.py'
    _small_config(133).dump(config)
    return variables, config


def test_main__converts_an_archive(convert, small):
    variables, config = small
    text, target = convert(variables, '--config', config)
    assert text == f'Wrote 1685 weights for 133 classes to {target}\n'
    checkpoint = torch.load(target, weights_only=True)
    assert checkpoint['meta']['source'] == 'theirs.npz' and 'AxialResNet' in checkpoint['meta']['cfg']
    assert len(checkpoint['meta']['dataset_meta']['classes']) == 133
    converter.MODELS.build(Config.fromfile(config).model).load_state_dict(checkpoint['state_dict'])


def test_main__reads_a_checkpoint_with_tensorflow(convert, small, tmp_path, monkeypatch):
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
    text, _ = convert(None, '--config', config, name='ckpt-7')
    assert text.startswith('Wrote 1685 weights') and opened == [str(tmp_path / 'ckpt-7')]


def test_main__says_how_to_do_without_tensorflow(convert, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow', None)
    (tmp_path / 'ckpt-7.index').touch()
    text, target = convert(None, name='ckpt-7')
    assert text.startswith('error: Expected TensorFlow to read') and 'pip install tensorflow-cpu' in text
    assert '.npz' in text and '--help' in text and not target.exists()


def test_main__lists_what_does_not_fit(convert, small):
    variables, config = small
    for name in [name for name in variables if name.startswith('encoder/_stage5/_block3/_conv3_bn/')]:
        del variables[name]
    variables[f'encoder/_memory_feature{SUFFIX}'] = np.zeros((1, 128, 256), np.float32)
    kernel = f'encoder/_stem/_conv2_bn_act/_conv/kernel{SUFFIX}'
    variables[kernel] = variables[kernel][..., :32]
    variables[f'pixel_space_head/final_conv/kernel{SUFFIX}'] = np.zeros((32, 16, 1), np.float32)

    text, target = convert(variables, '--config', config)
    assert text.startswith('error: Expected the weights in') and 'theirs.npz' in text
    assert '5 are missing:\n  backbone.stages.3.2.expand.conv.weight\n' in text
    assert '1 are unexpected:\n  encoder/_memory_feature;' in text
    assert 'backbone.stem.1.conv.weight (32, 64, 3, 3) instead of (64, 64, 3, 3)' in text
    assert 'pixel_embedding.conv.weight (1, 16, 32) instead of (16, 32, 1, 1)' in text
    assert not target.parent.exists()


@pytest.mark.parametrize('change, message', [
    (dict(drop=CLASS_HEAD), f'{CLASS_HEAD} among them, but found 2 others, such as: encoder/'),
    (dict(add={CLASS_HEAD: np.zeros(8)}),
     'head of 134 (COCO), 151 (ADE20K), 20 (Cityscapes) outputs, void included, but found 8'),
    (dict(add={SEMANTIC_HEAD: np.zeros(133)}), f'Expected 134 outputs of {SEMANTIC_HEAD}, but got (133,)'),
    (dict(drop='encoder/_stem/_conv/kernel'), 'among ResNet-50, MaX-S, ConvNeXt, but found none'),
    (dict(add={CLASS_HEAD + SUFFIX: np.zeros(134)}), f'weight once, but {CLASS_HEAD}{SUFFIX} is a second'),
    (dict(add=dict(extra=np.array(['text']))), 'but 1 of 4 variables are not, such as: extra'),
], ids=['no kMaX', 'classes', 'semantic classes', 'encoder', 'twice', 'text'])  # yapf: disable
def test_main__refuses_other_variables(convert, change, message):
    variables = {**_heads(np.zeros(134), np.zeros(134)), **change.get('add', {})}
    variables.pop(change.get('drop'), None)
    text, target = convert(variables)
    assert text.startswith('error: Expected') and message in text
    assert not target.exists()


@pytest.mark.parametrize('name, found', [('kmax_r50_8xb8-150k_coco-1281', 'ResNet'),
                                         ('kmax_max-s_8xb8-150k_coco-1281', 'AxialResNet')])
def test_build_model__refuses_another_backbone(name, found):
    # By names and shapes the weights would fit the usual ResNet-50.
    converted = convert_variables(_heads(np.zeros(134), np.zeros(134)))
    wanted = f"DeepLab2ResNet, which is deeplab2's ResNet-50, but the config .*{name}.py has {found}$"
    with pytest.raises(ValueError, match=wanted):
        converter.build_model(Config.fromfile(KMAX / f'{name}.py'), converted)


def test_build_model__refuses_a_config_without_model():
    converted = convert_variables(_heads(np.zeros(134), np.zeros(134)))
    with pytest.raises(ValueError, match='Expected `model` in the config'):
        converter.build_model(Config.fromfile(REPOSITORY / 'configs/_base_/default_runtime.py'), converted)


@pytest.mark.parametrize('content, name', [
    (b'', 'theirs.npz'),
    (b'PK\x03\x04 and no more', 'theirs.npz'),
    (None, 'theirs.npz'),
    (None, 'ckpt-7'),
])
def test_main__refuses_damaged_files(convert, content, name):
    text, target = convert(content, name=name)
    assert text.startswith('error: Expected') and name in text
    assert not target.exists()


class _Mischief:

    def __reduce__(self):
        return exec, ("open('mischief', 'w')", )


def test_read_variables__runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / 'a.npz', extra=np.array([_Mischief()], dtype=object))
    with pytest.raises(ValueError, match='cannot be read'):
        converter.read_variables(tmp_path / 'a.npz')
    assert not (tmp_path / 'mischief').exists()


def test_main__overwrites_only_when_told(convert, small, tmp_path):
    variables, config = small
    (tmp_path / 'new').mkdir()
    (tmp_path / 'new' / 'ours.pth').write_text('precious')
    text, target = convert(variables, '--config', config)
    assert '--force overwrites it' in text and target.read_text() == 'precious'
    assert convert(variables, '--config', config, '--force')[0].startswith('Wrote')
    assert [path.name for path in target.parent.iterdir()] == ['ours.pth']
