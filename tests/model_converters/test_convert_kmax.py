"""Conversion of public kMaX-DeepLab checkpoints; tests/models/detectors compares the outputs."""
import io
import pickle
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config

from remax_mm.model_converters import convert_kmax
from remax_mm.model_converters.convert_kmax import default_config, read_release
from remax_mm.model_converters.converted_checkpoint import build_meta_model
from remax_mm.model_converters.kmax_release import find_dataset
from tests.conftest import REPOSITORY

CLASS_HEAD = 'sem_seg_head.predictor._predcitor._transformer_class_head.conv.bias'
CONFIGS = REPOSITORY / 'configs'
KMAX = CONFIGS / 'kmax'
CITYSCAPES = '_8xb4-60k_cityscapes-1025x2049.py'


@pytest.fixture
def target(tmp_path):
    return tmp_path / 'new' / 'ours.pth'


@pytest.fixture
def convert(tmp_path, target):
    """Convert weights, or the bytes of a file; returns the checkpoint that was written."""

    def run(content, config=None, name='theirs.pth'):
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        elif content is not None:
            torch.save(content, tmp_path / name)
        config = None if config is None else Config.fromfile(config)
        convert_kmax(tmp_path / name, target, CONFIGS, config)
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


def _saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize('name,entries,classes', [
    ('r50_coco', 1417, 133),
    ('r50_ade20k', 1417, 150),
    ('convnext_tiny_coco', 1283, 133),
    ('r50_cityscapes', 1377, 19),
    ('convnext_large_cityscapes', 1411, 19),
])
def test_convert_kmax__fills_the_shipped_model(release, convert, name, entries, classes):
    checkpoint = convert(dict(model=release(name), iteration=149999))
    assert len(checkpoint['state_dict']) == entries
    assert checkpoint['meta']['source'] == 'theirs.pth'
    assert len(checkpoint['meta']['dataset_meta']['classes']) == classes

    config = default_config(checkpoint['state_dict'], find_dataset(classes + 1), CONFIGS)
    head = config.model.panoptic_head
    assert head.num_things_classes + head.num_stuff_classes == classes
    model = build_meta_model(config)
    model.load_state_dict(checkpoint['state_dict'], strict=True, assign=True)


def test_convert_kmax__bare_weights_without_counts_for_a_remax_config(release, convert):
    weights = {key: value for key, value in release('r50_coco').items() if 'num_batches' not in key}
    config = CONFIGS / 'remax' / 'remax-b_r50_8xb8-50k_coco-1281.py'
    with pytest.warns(UserWarning, match='seems to come from TensorFlow, whose ResNet-50 has no max-pool'):
        checkpoint = convert(weights, config)
    assert len(checkpoint['state_dict']) == 1417
    assert 'ReClass' in checkpoint['meta']['cfg']
    counts = [value for key, value in checkpoint['state_dict'].items() if 'num_batches_tracked' in key]
    assert len(counts) > 200 and all(value.dtype == torch.int64 and value.item() == 0 for value in counts)
    assert not [key for key in checkpoint['state_dict'] if 'remask' in key]


@pytest.mark.parametrize('name,config', [('r50_cityscapes', 'kmax_r50-os4'),
                                         ('convnext_large_cityscapes', 'kmax_convnext-l')])
def test_convert_kmax__cityscapes_by_the_shipped_configs(release, convert, name, config):
    weights = release(name)
    checkpoint = convert(dict(model=weights), KMAX / (config + CITYSCAPES))
    assert len(checkpoint['state_dict']) == len(weights)
    classes = checkpoint['meta']['dataset_meta']['classes']
    assert len(classes) == 19 and classes[:2] == ('person', 'rider') and classes[8] == 'road'


def test_convert_kmax__cityscapes_of_tensorflow(release, convert, refuse):
    """deeplab2's pixel decoder takes res2 before the stem, the release's takes the stem before res2."""
    weights = {key: value for key, value in release('r50_cityscapes').items() if 'num_batches' not in key}
    decoder = 'sem_seg_head.pixel_decoder.'
    for stage, width, fine in ((3, 256, 64), (4, 64, 32)):
        for part in ('weight', 'bias'):
            weights[f'{decoder}_in_norms.{stage}.{part}'] = torch.zeros(width)
        high = f'{decoder}_resized_fuses.{stage - 1}._conv_bn_high.'
        weights[f'{high}conv.weight'] = torch.zeros(fine, width, 1, 1)
        for part in ('weight', 'bias', 'running_mean', 'running_var'):
            weights[f'{high}norm.{part}'] = torch.zeros(fine)

    with pytest.warns(UserWarning, match='seems to come from TensorFlow'):
        assert 'input_norms.3.weight (256,) instead of (64,)' in refuse(weights)
    with pytest.warns(UserWarning, match='seems to come from TensorFlow'):
        checkpoint = convert(weights, KMAX / ('kmax_r50' + CITYSCAPES))
    assert len(checkpoint['meta']['dataset_meta']['classes']) == 19


def test_convert_kmax__without_a_semantic_head_in_the_config(release, convert, tmp_path):
    base = KMAX / 'kmax_r50_8xb8-150k_coco-1281.py'
    config = tmp_path / 'config.py'
    config.write_text(f'_base_ = {str(base)!r}\nmodel = dict(panoptic_head=dict(semantic_head=None))\n')
    weights = release('r50_coco')
    theirs = [key for key in weights if '_auxiliary_semantic_predictor' in key]
    assert len(convert(weights, config)['state_dict']) == 1417 - len(theirs)


def test_fit_weights__lists_what_does_not_fit(release, refuse):
    weights = release('r50_coco')
    for index in range(12):
        weights[f'backbone.res9.{index}.weight'] = torch.zeros(1)
    for key in [key for key in weights if key.startswith('backbone.res5.0.') and 'batches' not in key]:
        del weights[key]
    weights['backbone.stem.conv1.weight'] = torch.zeros(64, 3, 3, 3)
    text = refuse(dict(model=weights))
    assert text.startswith('Expected the weights in')
    assert '20 are missing:\n  backbone.layer4.0.conv1.weight\n' in text
    assert '12 are unexpected:\n  backbone.layer8.0.weight\n' in text
    assert 'backbone.layer8.9.weight\n  ...' in text and 'backbone.layer8.10.weight' not in text
    assert '1 have another shape:\n  backbone.conv1.weight (64, 3, 3, 3) instead of (64, 3, 7, 7)' in text


@pytest.mark.parametrize('change,message', [
    (lambda weights: weights.pop(CLASS_HEAD), 'Expected weights of the public PyTorch kMaX-DeepLab'),
    (lambda weights: weights.update({CLASS_HEAD: torch.zeros(8)}),
     r'Expected a class head of 134 \(COCO\), 151 \(ADE20K\), 20 \(Cityscapes\) outputs, void included, '
     'but found 8'),
    (lambda weights: weights.update(extra='text'), 'but 1 of 3 entries are not:\n  extra'),
])
def test_convert_kmax__refuses_other_weights(refuse, change, message):
    weights = {CLASS_HEAD: torch.zeros(134), 'backbone.layer1.0.conv1.weight': torch.zeros(1)}
    change(weights)
    assert re.search(message, refuse(dict(model=weights)))


@pytest.mark.parametrize('old,new,message', [
    ('.stages.2.8.', '.stages.2.9.9.',
     r'found stages of (3, 3, 8, 3) blocks and (96, 192, 384, 768) channels'),
    ('.stages.', '.others.', 'give its config with --config'),
])
def test_default_config__unknown_backbone(release, refuse, old, new, message):
    weights = {key.replace(old, new): value for key, value in release('convnext_tiny_coco').items()}
    assert message in refuse(weights)


def test_convert_kmax__refuses_a_config_of_another_backbone(release, refuse):
    config = KMAX / 'kmax_mnv3-s_8xb8-150k_coco-641.py'
    text = refuse(release('r50_coco'), config)
    assert 'are missing:\n  backbone.' in text and 'are unexpected:\n  backbone.conv1.weight' in text


@pytest.mark.parametrize('change,message', [
    ('pixel_decoder=dict(num_blocks=[1, 5, 1])', "one entry per stage in every list .*'num_blocks': 3"),
    ('in_channels=[64, 256, 512, 1024, 2048]', "one entry per stage .*'in_channels': 5"),
    ('transformer_decoder=dict(num_layers=[2, 2, 2, 2])', 'but got 4 entries for 4 features'),
    ('num_relaxed=7', 'from 1 to 6, the number of decoder layers, but got 7'),
])
def test_convert_kmax__refuses_a_config_that_contradicts_itself(release, refuse, tmp_path, change, message):
    base = CONFIGS / 'remax' / 'remax-b_r50_8xb8-50k_coco-1281.py'
    config = tmp_path / 'config.py'
    config.write_text(f'_base_ = {str(base)!r}\nmodel = dict(panoptic_head=dict({change}))\n')
    assert re.search(message, refuse(release('r50_coco'), config))


def test_convert_kmax__refuses_a_config_without_model(release, refuse):
    config = CONFIGS / '_base_' / 'default_runtime.py'
    assert refuse(release('r50_coco'), config) == f'Expected `model` in the config {config}, but it has none'


@pytest.mark.parametrize('content,name', [
    (_saved({CLASS_HEAD: torch.zeros(134)})[:300], 'theirs.pth'),
    (b'', 'theirs.pth'),
    (b'<html>not found</html>', 'theirs.pth'),
    (pickle.dumps(dict(model={CLASS_HEAD: np.zeros(134)}))[:-20], 'theirs.pkl'),
    (_saved([1, 2]), 'theirs.pth'),
    (_saved(dict(model={})), 'theirs.pth'),
    (_saved(dict(model=Config())), 'theirs.pth'),
    (None, 'theirs.pth'),
])
def test_read_release__damaged_files(refuse, content, name):
    text = refuse(content, name=name)
    assert text.startswith('Expected') and name in text


class _CodeRunner:

    def __reduce__(self):
        return exec, ("open('executed', 'w')", )


def test_read_release__runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, dump in (('a.pkl', pickle.dumps(dict(model=_CodeRunner()))), ('a.pth', _saved(_CodeRunner()))):
        (tmp_path / name).write_bytes(dump)
        with pytest.raises(ValueError, match='cannot be read'):
            read_release(tmp_path / name)
    assert not (tmp_path / 'executed').exists()


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_read_release__detectron2_pickles(tmp_path, protocol):
    arrays = dict(weight=np.random.RandomState(0).randn(2, 3).astype(np.float32), count=np.array(7))
    content = dict(model=arrays, __author__='third_party', matching_heuristics=True)
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(content, protocol=protocol))
    weights = read_release(tmp_path / 'a.pkl')
    assert list(weights) == ['weight', 'count'] and weights['count'].item() == 7
    np.testing.assert_array_equal(weights['weight'].numpy(), arrays['weight'])
