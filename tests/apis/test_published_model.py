"""Published models: one file gives the same results, and no file runs code or fills the memory."""
import copy
import hashlib
import http.server
import json
import os
import runpy
import sys
import threading

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from remax_mm import list_models
from remax_mm.apis import PanopticInferencer, load_config, use_tiles, use_tta
from remax_mm.apis.published_config import decode_config, encode_config
from remax_mm.apis.published_model import HUB_FILE, _checksum, download_model, read_published
from tests.conftest import REPOSITORY
from tests.missing_dataset import missing_dataset
from tests.tiny_model import detector_config

safetensors = pytest.importorskip('safetensors.torch')

CLASSES = dict(
    classes=('cat', 'dog', 'bird', 'sky', 'sea'),
    thing_classes=('cat', 'dog', 'bird'),
    stuff_classes=('sky', 'sea'),
    palette=[(200, 0, 0), (0, 200, 0), (9, 9, 9), (0, 0, 200), (0, 90, 90)])
FORMATS = ['.safetensors', pytest.param('.pth', marks=pytest.mark.slow)]
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 90, 3), np.uint8)


def _config():
    pipeline = [
        dict(type='LoadImageStrict'),
        dict(type='Resize', scale=(65, 65), keep_ratio=True),
        dict(type='LoadSegmentIds'),
        dict(type='PackPanopticInputs')
    ]
    dataset = missing_dataset(CLASSES, pipeline)
    model = detector_config()
    model['test_cfg'].update(instance_on=False, semantic_on=False)
    model['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint='https://example.org/resnet.pth')
    return Config(dict(default_scope='mmdet', model=model, test_dataloader=dict(dataset=dataset)))


@pytest.fixture(scope='module')
def trained():
    """A ReMaX with random weights, training-only parts and norms that have seen data."""
    torch.manual_seed(0)
    inferencer = PanopticInferencer(_config(), device='cpu')
    for name, value in inferencer.model.state_dict().items():
        if 'running' in name:
            value.uniform_(0.5, 1.5)
    return inferencer


@pytest.fixture(scope='module')
def published(trained, tmp_path_factory):
    """One file of each format."""
    folder = tmp_path_factory.mktemp('published')
    return {suffix: trained.publish(folder / f'tiny{suffix}') for suffix in ('.safetensors', '.pth')}


def _assert_same(one, other):
    ours, theirs = one(IMAGE)['predictions'][0], other(IMAGE)['predictions'][0]
    assert theirs.segments_info and theirs.segments_info[0]['score'] > 0
    np.testing.assert_array_equal(ours.segment_map, theirs.segment_map)
    assert ours.segments_info == theirs.segments_info


@pytest.mark.parametrize('suffix', FORMATS)
def test_publish__one_file_is_enough(suffix, trained, published):
    path = published[suffix]
    assert path.name == f'tiny-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}{suffix}'
    loaded = PanopticInferencer(str(path), device='cpu')
    _assert_same(loaded, trained)
    assert loaded.dataset_meta == {key: type(value)(value) for key, value in CLASSES.items()}

    # Nothing but what inference needs, and no reference to other weights.
    assert any('semantic_head' in name for name in trained.model.state_dict())
    weights = read_published(path).weights
    assert weights and not any('semantic_head' in name or 'num_batches' in name for name in weights)
    assert b'example.org' not in path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_publish__weights_for_a_config_of_ones_own(suffix, trained, published):
    _assert_same(PanopticInferencer(_config(), published[suffix], 'cpu'), trained)


def test_publish__a_pth_file_is_a_checkpoint_of_the_other_tools(published):
    saved = torch.load(published['.pth'], weights_only=True)
    assert saved['meta']['dataset_meta'] == CLASSES and 'backbone.conv1.weight' in saved['state_dict']


def test_publish__bad_input(trained, tmp_path):
    with pytest.raises(ValueError, match='ends in .safetensors or .pth, but got .*tiny.onnx'):
        trained.publish(tmp_path / 'tiny.onnx')
    with pytest.raises(FileNotFoundError, match='none.safetensors'):
        PanopticInferencer(tmp_path / 'none.safetensors')
    with pytest.raises(ValueError, match='neither'):
        PanopticInferencer()
    torch.save(dict(state_dict=trained.model.state_dict()), tmp_path / 'plain.pth')
    with pytest.raises(ValueError, match='plain.pth, but it has no config inside; .* give the config'):
        PanopticInferencer(tmp_path / 'plain.pth')
    safetensors.save_file(trained.model.state_dict(), tmp_path / 'plain.safetensors')
    with pytest.raises(ValueError, match='plain.safetensors, but it has no config inside'):
        PanopticInferencer(_config(), tmp_path / 'plain.safetensors')


@pytest.mark.slow
@pytest.mark.parametrize('change', [use_tta, lambda config: use_tiles(config, 65, 16)])
def test_publish__views_and_tiles(change, trained, tmp_path):
    wrapped = PanopticInferencer(change(_config()), device='cpu')
    wrapped.model.module.load_state_dict(trained.model.state_dict())
    _assert_same(PanopticInferencer(wrapped.publish(tmp_path / 'a.pth'), device='cpu'), wrapped)


# ---- folders and the hub


def test_save_pretrained__folder(trained, tmp_path):
    path = trained.save_pretrained(tmp_path / 'new')
    assert path == tmp_path / 'new' / HUB_FILE and [path] == list((tmp_path / 'new').iterdir())
    _assert_same(PanopticInferencer.from_pretrained(tmp_path / 'new', device='cpu'), trained)
    with pytest.raises(FileNotFoundError, match=f'{tmp_path}/{HUB_FILE}'):
        PanopticInferencer.from_pretrained(tmp_path)


class _Hub(http.server.BaseHTTPRequestHandler):
    """The answers of the Hugging Face Hub for one file of one repository."""
    content = b''
    requested: list = []

    def do_HEAD(self):
        self.requested.append(f'{self.command} {self.path}')
        if self.path != f'/user/tiny/resolve/v1/{HUB_FILE}':
            self.send_response(404)
            self.send_header('X-Error-Code', 'RepoNotFound')
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header('X-Repo-Commit', 40 * 'a')
        self.send_header('ETag', hashlib.sha256(self.content).hexdigest())
        self.send_header('Content-Length', str(len(self.content)))
        self.end_headers()
        if self.command == 'GET':
            self.wfile.write(self.content)

    do_GET = do_HEAD

    def log_message(self, *args):
        pass


def test_from_pretrained__hub(trained, published, tmp_path, monkeypatch):
    hub = pytest.importorskip('huggingface_hub.constants')
    _Hub.content, _Hub.requested = published['.safetensors'].read_bytes(), []
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Hub) as server:
        threading.Thread(target=server.serve_forever, args=(0.01, ), daemon=True).start()
        monkeypatch.setattr(hub, 'ENDPOINT', f'http://127.0.0.1:{server.server_port}')
        monkeypatch.setattr(hub, 'HUGGINGFACE_CO_URL_TEMPLATE',
                            hub.ENDPOINT + '/{repo_id}/resolve/{revision}/{filename}')
        monkeypatch.setattr(hub, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
        monkeypatch.chdir(tmp_path)
        _assert_same(PanopticInferencer.from_pretrained('user/tiny', revision='v1', device='cpu'), trained)
        assert f'GET /user/tiny/resolve/v1/{HUB_FILE}' in _Hub.requested
        # From the cache, without a second download.
        _Hub.requested.clear()
        assert download_model('user/tiny', 'v1').read_bytes() == _Hub.content
        assert not any(request.startswith('GET') for request in _Hub.requested)
        for missing in ('user/none', 'not/an/id'):
            with pytest.raises(FileNotFoundError, match=f'Expected a folder {missing}, or a repository'):
                PanopticInferencer.from_pretrained(missing, device='cpu')
        server.shutdown()


def test_from_pretrained__without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(ImportError, match=r'user/tiny, .*remax_mm\[hub\]'):
        PanopticInferencer.from_pretrained('user/tiny')


# ---- hostile files


@pytest.fixture
def mark(tmp_path):
    """File that exists once code of a file has run."""
    return tmp_path / 'mark'


def _rewrite(source, target, change):
    """Write a published model with other data and a checksum that fits."""
    with safetensors.safe_open(str(source), 'pt') as file:
        data = json.loads(file.metadata()['remax_mm'])
        weights = {name: file.get_tensor(name) for name in file.keys()}
    data = change(data, weights) or data
    text = data if isinstance(data, str) else json.dumps(data)
    if target.suffix == '.pth':
        torch.save(dict(state_dict=weights, meta=dict(remax_mm=text)), target)
    else:
        safetensors.save_file(weights, target, metadata=dict(remax_mm=text, sha256=_checksum(weights, text)))
    return target


def _setter(*keys):
    """A change of the data: the value at some keys."""

    def make(value):

        def change(data, weights):
            inner = data
            for key in keys[:-1]:
                inner = inner[key]
            inner[keys[-1]] = value

        return change

    return make


_MODEL, _BACKBONE = _setter('model'), _setter('model', 'backbone')
_HEAD, _NORM = _setter('model', 'panoptic_head', 'semantic_head'), _setter('model', 'backbone', 'norm_cfg')
_STEP, _META = _setter('pipeline', 1), _setter('dataset_meta', 'classes')
CALLS = {
    'model': lambda call: _MODEL(call),
    'backbone': lambda call: _BACKBONE(call),
    'head': lambda call: _HEAD(call),
    'norm': lambda call: _NORM(call),
    'new key': lambda call: _setter('model', 'train_cfg')(dict(assigner=[call])),
    'pipeline': lambda call: _STEP(call),
    'nested transform': lambda call: _STEP(dict(type='TestTimeAug', transforms=[[call]])),
    'classes': lambda call: _META(call),
}


@pytest.mark.parametrize('suffix', FORMATS)
@pytest.mark.parametrize('place', CALLS)
def test_read_published__runs_no_call(place, suffix, published, tmp_path, mark):
    call = dict(type='subprocess.call', args=['touch', str(mark)])
    path = _rewrite(published['.safetensors'], tmp_path / f'hostile{suffix}', CALLS[place](call))
    with pytest.raises(ValueError, match=f'hostile{suffix} '):
        PanopticInferencer(path, device='cpu')
    assert not mark.exists()


def test_call__leaves_a_mark_without_protection(mark):
    with DefaultScope.overwrite_default_scope('mmdet'):
        MODELS.build(dict(type='subprocess.call', args=['touch', str(mark)]))
    assert mark.exists()


def test_read_published__imports_no_module_of_a_type(published, tmp_path, mark, monkeypatch):
    (tmp_path / 'hostile_module.py').write_text(f'open({str(mark)!r}, "w").close()')
    monkeypatch.syspath_prepend(tmp_path)
    for name in ('hostile_module', 'hostile_module.part', 'mmdet.hostile_module'):
        path = _rewrite(published['.safetensors'], tmp_path / 'hostile.pth', _BACKBONE(dict(type=name)))
        with pytest.raises(ValueError, match=f"has the type '{name}', which is not loaded"):
            PanopticInferencer(path, device='cpu')
    assert not mark.exists()
    with pytest.raises(Exception):
        MODELS.build(dict(type='hostile_module.part'))
    assert mark.exists()  # it would be imported without the check


def _deep(data, weights):
    text = json.dumps(data)
    return text.replace('"norm_cfg"', '"deep": ' + 200 * '[' + 200 * ']' + ', "norm_cfg"', 1)


REFUSED = {
    'other scope': (_setter('model', 'backbone', '_scope_')('mmseg'), "name no source .*'_scope_'"),
    'weights from elsewhere':
    (_setter('model', 'backbone',
             'init_cfg')(dict(type='Pretrained',
                              checkpoint='http://127.0.0.1:9/x')), "no source of weights .*'init_cfg'"),
    'mmdet part that downloads': (_BACKBONE(dict(type='BertModel', name='bert')), "'BertModel'"),
    'type that is no name': (_BACKBONE(dict(type=['ResNet'])), r"type \['ResNet'\]"),
    'model in the pipeline': (_STEP(dict(type='ResNet', depth=18)), "'ResNet'"),
    'transform in the model': (_BACKBONE(dict(type='Resize')), "'Resize'"),
    'no detector': (_MODEL(dict(type='ReLU')), 'describe a detector, but got ReLU'),
    'unknown argument': (_setter('model', 'backbone', 'unknown')(1), 'cannot be built: .*unknown'),
    'no transforms': (_setter('pipeline')([]), 'other content'),
    'transforms that are none': (_setter('pipeline')(['Resize']), 'other content'),
    'unknown argument of a transform': (_STEP(dict(type='Resize', unknown=1)), 'cannot be built: .*unknown'),
    'more imports': (_setter('custom_imports')(dict(imports=['antigravity'])), 'other content'),
    'other format': (_setter('format')(2), 'in format 1'),
    'list': (lambda data, weights: [data], 'other content'),
    'no JSON': (lambda data, weights: '{', 'JSON'),
    'code': (lambda data, weights: '__import__("os").abort()', 'JSON'),
    'deep': (_deep, '32 levels'),
    'very deep': (lambda data, weights: 100000 * '[', 'JSON'),
    'many values': (_setter('model', 'many')(list(range(60000))), 'at most 50000 values'),
    'large text': (_setter('model', 'text')(2**20 * 'a'), 'at most 1048576 bytes'),
    'infinite': (_setter('model', 'test_cfg', 'thing_threshold')(float('inf')), 'numbers up to .* inf'),
    'large number': (_setter('model', 'panoptic_head', 'transformer_decoder',
                             'num_slots')(10**12), 'numbers up to .* 1000000000000'),
    # More than 50 GB of weights, if they were allocated.
    'large model': (_setter('model', 'panoptic_head', 'transformer_decoder',
                            'channels')(10**5), 'another shape'),
    'tuple beside others': (_setter('model', 'x')({
        '__tuple__': [],
        'type': 'os.system'
    }), '`__tuple__`'),
    'fewer classes': (_setter('dataset_meta', 'classes')(['cat']), 'thing and stuff classes'),
    'names that are none': (_setter('dataset_meta', 'classes')([1, 2, 3, 4, 5]), 'list of names'),
    'colors that are none': (_setter('dataset_meta', 'palette')('random'), 'a color'),
    'colors out of range': (_setter('dataset_meta', 'palette')(5 * [[0, 0, 256]]), 'a color'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_read_published__refuses(case, published, tmp_path):
    change, message = REFUSED[case]
    path = _rewrite(published['.safetensors'], tmp_path / 'bad.safetensors', change)
    with pytest.raises(ValueError, match=f'(?s)(?=.*bad.safetensors).*{message}'):
        PanopticInferencer(path, device='cpu')


def test_read_published__classes_must_fit_the_model(published, tmp_path):

    def one_thing_less(data, weights):
        data['dataset_meta'] = dict(classes=['cat', 'sky'], thing_classes=['cat'], stuff_classes=['sky'])

    path = _rewrite(published['.safetensors'], tmp_path / 'bad.pth', one_thing_less)
    with pytest.raises(ValueError, match='1 thing and 1 stuff classes of .*bad.pth, but'):
        PanopticInferencer(path, device='cpu')


def _nan(data, weights):
    weights['backbone.conv1.weight'][0] = torch.nan


def _missing(data, weights):
    del weights['backbone.conv1.weight']


@pytest.mark.parametrize('change, message', [(_nan, 'finite weights, but 1 '), (_missing, '1 are missing')])
def test_read_published__broken_weights(change, message, published, tmp_path):
    path = _rewrite(published['.safetensors'], tmp_path / 'bad.safetensors', change)
    with pytest.raises(ValueError, match=f'bad.safetensors to have .*{message}'):
        PanopticInferencer(path, device='cpu')


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_read_published__damaged_files(suffix, published, tmp_path):
    path, intact = tmp_path / f'bad{suffix}', published[suffix].read_bytes()
    middle = len(intact) // 2
    changed = intact[:middle] + bytes([intact[middle] ^ 1]) + intact[middle + 1:]
    for content in (b'', b'text', intact[:100], intact[:-1], intact[:middle], changed):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f'Expected .*bad{suffix}'):
            PanopticInferencer(path, device='cpu')


def test_read_published__changed_config(published, tmp_path):
    intact = published['.safetensors'].read_bytes()
    assert intact.count(b'overlap_threshold\\": 0.1') == 1
    path = tmp_path / 'bad.safetensors'
    path.write_bytes(intact.replace(b'overlap_threshold\\": 0.1', b'overlap_threshold\\": 0.9'))
    with pytest.raises(ValueError, match='checksum'):
        PanopticInferencer(path, device='cpu')


# ---- configs


@pytest.mark.parametrize('names', [
    ('remax-t', 'max-deeplab-s', 'mask2former'),
    pytest.param(tuple(list_models()), marks=pytest.mark.slow),
])
def test_encode_config__every_model_comes_back(names):
    count = 0
    for name in names:
        config = load_config(name)
        if 'instance' in name or name in ('remax-mask2former_r50_8xb2-lsj-50e_coco', ):
            continue  # an instance model, which has no stuff
        data = json.loads(json.dumps(encode_config(config, CLASSES)))
        decoded = decode_config(data, name).config
        assert _plain(decoded.model) == _plain(config.model), name
        count += 1
    assert count >= len(names) - 1


def _plain(value):
    """A config without the keys that are not published."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k not in ('init_cfg', 'pretrained', '_scope_')}
    return type(value)(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def test_encode_config__parts_of_ones_own():
    config = _config()
    config.model.backbone = dict(type='MyBackbone')
    with pytest.raises(ValueError, match="Expected the config to consist of .* the type 'MyBackbone'"):
        encode_config(config, CLASSES)
    config = copy.deepcopy(_config())
    config.model.backbone.out_indices = {1, 2}
    with pytest.raises(ValueError, match=r'Expected literals .*\{1, 2\}'):
        encode_config(config, CLASSES)


@pytest.mark.slow
def test_publish__tool(tmp_path, trained, capsys):
    config = tmp_path / 'tiny.py'
    _config().dump(config)
    torch.save(
        dict(state_dict=trained.model.state_dict(), meta=dict(dataset_meta=CLASSES)), tmp_path / 'a.pth')
    main = runpy.run_path(str(REPOSITORY / 'tools' / 'misc' / 'publish.py'))['main']
    main([str(config), str(tmp_path / 'a.pth'), str(tmp_path / 'out' / 'tiny.safetensors')])
    path, = (tmp_path / 'out').iterdir()
    assert str(path) in capsys.readouterr().out
    _assert_same(PanopticInferencer(path, device='cpu'), trained)
    with pytest.raises(SystemExit, match='error: Expected a file name that ends in'):
        main([str(config), str(tmp_path / 'a.pth'), str(tmp_path / 'tiny.zip')])
    assert os.listdir(tmp_path / 'out') == [path.name]
