"""The converter of public kMaX-DeepLab checkpoints. Its numbers: tests/models/detectors."""
import io
import pickle
import re
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config

from tests.conftest import REPOSITORY
from tests.reference_names import CONVERTERS

sys.path.insert(0, str(CONVERTERS))

import kmax_to_remax_mm as converter  # noqa: E402
from kmax_release import DATASET_OF_CLASS_OUTPUTS  # noqa: E402

CLASS_HEAD = 'sem_seg_head.predictor._predcitor._transformer_class_head.conv.bias'
KMAX = REPOSITORY / 'configs' / 'kmax'
CITYSCAPES = '_8xb4-60k_cityscapes-1025x2049.py'


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys):
    """Runs the command line on weights, a dict or the bytes of a file; its text and what it wrote."""

    def run(content, *arguments, name='theirs.pth'):
        source, target = tmp_path / name, tmp_path / 'new' / 'ours.pth'
        if isinstance(content, bytes):
            source.write_bytes(content)
        elif content is not None:
            torch.save(content, source)
        monkeypatch.setattr(
            'sys.argv', ['kmax_to_remax_mm.py',
                         str(source), str(target), *map(str, arguments)])
        try:
            converter.main()
        except SystemExit as error:
            return str(error), target
        return capsys.readouterr().out, target

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
def test_main__fills_the_shipped_model(release, convert, name, entries, classes):
    text, target = convert(dict(model=release(name), iteration=149999))
    assert text.startswith(f'Wrote {entries} weights for {classes} classes')

    checkpoint = torch.load(target, weights_only=True)
    assert checkpoint['meta']['source'] == 'theirs.pth'
    assert len(checkpoint['meta']['dataset_meta']['classes']) == classes

    config = converter.default_config(checkpoint['state_dict'], DATASET_OF_CLASS_OUTPUTS[classes + 1])
    head = config.model.panoptic_head
    assert head.num_things_classes + head.num_stuff_classes == classes
    with torch.device('meta'):
        model = converter.MODELS.build(config.model)
    model.load_state_dict(checkpoint['state_dict'], strict=True, assign=True)


def test_main__bare_weights_without_counts_for_a_remax_config(release, convert):
    weights = {key: value for key, value in release('r50_coco').items() if 'num_batches' not in key}
    config = REPOSITORY / 'configs' / 'remax' / 'remax-b_r50_8xb8-50k_coco-1281.py'
    with pytest.warns(UserWarning, match='seems to come from TensorFlow, whose ResNet-50 has no max-pool'):
        text, target = convert(weights, '--config', config)
    assert text.startswith('Wrote 1417 weights')

    checkpoint = torch.load(target, weights_only=True)
    assert 'ReClass' in checkpoint['meta']['cfg']
    counts = [value for key, value in checkpoint['state_dict'].items() if 'num_batches_tracked' in key]
    assert len(counts) > 200 and all(value.dtype == torch.int64 and value.item() == 0 for value in counts)
    assert not [key for key in checkpoint['state_dict'] if 'remask' in key]


@pytest.mark.parametrize('name,config', [('r50_cityscapes', 'kmax_r50-os4'),
                                         ('convnext_large_cityscapes', 'kmax_convnext-l')])
def test_main__cityscapes_by_the_shipped_configs(release, convert, name, config):
    weights = release(name)
    text, target = convert(dict(model=weights), '--config', KMAX / (config + CITYSCAPES))
    assert text.startswith(f'Wrote {len(weights)} weights for 19 classes')
    classes = torch.load(target, weights_only=True)['meta']['dataset_meta']['classes']
    assert classes[:2] == ('person', 'rider') and classes[8] == 'road'


def test_main__cityscapes_of_tensorflow(release, convert):
    """deeplab2's pixel decoder meets res2 before the stem, the release's only the other way round."""
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
        text, _ = convert(weights)
    assert 'input_norms.3.weight (256,) instead of (64,)' in text
    with pytest.warns(UserWarning, match='seems to come from TensorFlow'):
        text, _ = convert(weights, '--config', KMAX / ('kmax_r50' + CITYSCAPES))
    assert text.startswith('Wrote')


def test_main__leaves_out_a_semantic_head_that_the_config_lacks(release, convert, tmp_path):
    base = KMAX / 'kmax_r50_8xb8-150k_coco-1281.py'
    config = tmp_path / 'config.py'
    config.write_text(f'_base_ = {str(base)!r}\nmodel = dict(panoptic_head=dict(semantic_head=None))\n')
    weights = release('r50_coco')
    theirs = [key for key in weights if '_auxiliary_semantic_predictor' in key]
    text, _ = convert(weights, '--config', config)
    assert text.startswith(f'Wrote {1417 - len(theirs)} weights')


def test_main__lists_what_does_not_fit(release, convert):
    weights = release('r50_coco')
    for index in range(12):
        weights[f'backbone.res9.{index}.weight'] = torch.zeros(1)
    for key in [key for key in weights if key.startswith('backbone.res5.0.') and 'batches' not in key]:
        del weights[key]
    weights['backbone.stem.conv1.weight'] = torch.zeros(64, 3, 3, 3)
    text, target = convert(dict(model=weights))
    assert text.startswith('error: Expected the weights in')
    assert '20 are missing:\n  backbone.layer4.0.conv1.weight\n' in text
    assert '12 are unexpected:\n  backbone.layer8.0.weight\n' in text
    assert 'backbone.layer8.9.weight\n  ...' in text and 'backbone.layer8.10.weight' not in text
    assert '1 have another shape:\n  backbone.conv1.weight (64, 3, 3, 3) instead of (64, 3, 7, 7)' in text
    assert not target.parent.exists()


@pytest.mark.parametrize('change,message', [
    (lambda weights: weights.pop(CLASS_HEAD), 'Expected weights of the public PyTorch kMaX-DeepLab'),
    (lambda weights: weights.update({CLASS_HEAD: torch.zeros(8)}),
     r'Expected a class head of 134 \(COCO\), 151 \(ADE20K\), 20 \(Cityscapes\) outputs, void included, '
     'but found 8'),
    (lambda weights: weights.update(extra='text'), 'but 1 of 3 entries are not:\n  extra'),
])
def test_main__refuses_other_weights(convert, change, message):
    weights = {CLASS_HEAD: torch.zeros(134), 'backbone.layer1.0.conv1.weight': torch.zeros(1)}
    change(weights)
    text, target = convert(dict(model=weights))
    assert text.startswith('error: ')
    with pytest.raises(ValueError, match=message):
        raise ValueError(text)
    assert not target.exists()


@pytest.mark.parametrize('old,new,message', [
    ('.stages.2.8.', '.stages.2.9.9.',
     r'found stages of (3, 3, 8, 3) blocks and (96, 192, 384, 768) channels'),
    ('.stages.', '.others.', 'name its config with --config'),
])
def test_main__refuses_backbones_without_default_config(release, convert, old, new, message):
    weights = {key.replace(old, new): value for key, value in release('convnext_tiny_coco').items()}
    assert message in convert(weights)[0]


def test_main__refuses_a_config_of_another_backbone(release, convert):
    config = KMAX / 'kmax_mnv3-s_8xb8-150k_coco-641.py'
    text, target = convert(release('r50_coco'), '--config', config)
    assert 'are missing:\n  backbone.' in text and 'are unexpected:\n  backbone.conv1.weight' in text
    assert not target.exists()


@pytest.mark.parametrize('change,message', [
    ('pixel_decoder=dict(num_blocks=[1, 5, 1])', "one entry per stage in every list .*'num_blocks': 3"),
    ('in_channels=[64, 256, 512, 1024, 2048]',
     'of ASPPSemanticHead for res2 to res5 .*got .64, 256, 512, 1024, 2048'),
    ('transformer_decoder=dict(num_layers=[2, 2, 2, 2])', 'but got 4 entries for 4 features'),
    ('num_relaxed=7', 'from 1 to 6, the number of decoder layers, but got 7'),
])
def test_main__refuses_a_config_that_contradicts_itself(release, convert, tmp_path, change, message):
    base = REPOSITORY / 'configs' / 'remax' / 'remax-b_r50_8xb8-50k_coco-1281.py'
    config = tmp_path / 'config.py'
    config.write_text(f'_base_ = {str(base)!r}\nmodel = dict(panoptic_head=dict({change}))\n')
    text, target = convert(release('r50_coco'), '--config', config)
    assert text.startswith('error: ') and re.search(message, text) and not target.exists()


def test_main__refuses_a_config_without_model(release, convert):
    config = REPOSITORY / 'configs' / '_base_' / 'default_runtime.py'
    text, target = convert(release('r50_coco'), '--config', config)
    assert text == f'error: Expected `model` in the config {config}, but it has none' and not target.exists()


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
def test_main__refuses_damaged_files(convert, content, name):
    text, target = convert(content, name=name)
    assert text.startswith('error: Expected') and name in text
    assert not target.exists()


class _Mischief:

    def __reduce__(self):
        return exec, ("open('mischief', 'w')", )


def test_read_release__runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, dump in (('a.pkl', pickle.dumps(dict(model=_Mischief()))), ('a.pth', _saved(_Mischief()))):
        (tmp_path / name).write_bytes(dump)
        with pytest.raises(ValueError, match='cannot be read'):
            converter.read_release(tmp_path / name)
    assert not (tmp_path / 'mischief').exists()


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_read_release__detectron2_pickles(tmp_path, protocol):
    arrays = dict(weight=np.random.RandomState(0).randn(2, 3).astype(np.float32), count=np.array(7))
    content = dict(model=arrays, __author__='third_party', matching_heuristics=True)
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(content, protocol=protocol))
    weights = converter.read_release(tmp_path / 'a.pkl')
    assert list(weights) == ['weight', 'count'] and weights['count'].item() == 7
    np.testing.assert_array_equal(weights['weight'].numpy(), arrays['weight'])


def test_main__overwrites_only_when_told(release, convert, tmp_path):
    (tmp_path / 'new').mkdir()
    (tmp_path / 'new' / 'ours.pth').write_text('precious')
    text, target = convert(release('r50_coco'))
    assert '--force overwrites it' in text and target.read_text() == 'precious'
    assert convert(release('r50_coco'), '--force')[0].startswith('Wrote')
    assert [path.name for path in target.parent.iterdir()] == ['ours.pth']
