"""No checkpoint runs code, whatever reads it: each reader gets files that would leave a mark."""
import functools
import http.server
import os
import pickle
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Tuple

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, load_checkpoint
from packaging.version import Version

from remax_mm.apis import PanopticInferencer
from tests.reliability.brightness import run_script

pytestmark = pytest.mark.skipif(
    Version(torch.__version__) < Version('2.6'),
    reason='torch below 2.6 cannot load mmengine checkpoints as data')


class _Call:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Tuple[Callable, Tuple[Any, ...]]:
        return self.call


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """File that exists once code of a checkpoint has run."""
    return tmp_path / 'mark'


def _with_config_code(checkpoint: dict, mark: Path) -> None:
    """Code wherever mmengine looks for a config."""
    code = f'open({str(mark)!r}, "w").close()'
    checkpoint['meta'].update(config=code, cfg=code)
    checkpoint['message_hub']['runtime_info']['cfg'] = code


def _with_config_data(checkpoint: dict, mark: Path) -> None:
    """A config without any code, whose model is a command."""
    config = f'model = dict(type="subprocess.call", args=["touch", {str(mark)!r}])'
    checkpoint['meta'].update(config=config, cfg=config)
    checkpoint['message_hub']['runtime_info']['cfg'] = config


def _with_pickled_call(checkpoint: dict, mark: Path) -> None:
    checkpoint['meta']['time'] = _Call(os.system, f'touch {mark}')


ATTACKS: Dict[str, Callable[[dict, Path], None]] = dict(
    config_code=_with_config_code, config_data=_with_config_data, pickled_call=_with_pickled_call)


@pytest.fixture
def hostile(request: pytest.FixtureRequest, brightness: Path, tmp_path: Path, mark: Path) -> Path:
    """A checkpoint of a training, with one attack in it."""
    checkpoint = torch.load(brightness / 'run' / 'iter_2.pth', weights_only=True)
    ATTACKS[request.param](checkpoint, mark)
    path = tmp_path / 'run' / 'iter_2.pth'
    path.parent.mkdir()
    torch.save(checkpoint, path)
    (path.parent / 'last_checkpoint').write_text(str(path))
    return path


def _train(brightness: Path, checkpoint: Path, *options: object) -> None:
    run_script('tools/train.py', brightness / 'tiny.py', '--work-dir', checkpoint.parent, *options)


def _test(brightness: Path, checkpoint: Path) -> None:
    run_script('tools/test.py', brightness / 'tiny.py', checkpoint, '--work-dir', checkpoint.parent)


def _demo(brightness: Path, checkpoint: Path) -> None:
    run_script('demo/image_demo.py', brightness / 'images', brightness / 'tiny.py', checkpoint, '--out-dir',
               checkpoint.parent / 'out')


def _initialize(brightness: Path, checkpoint: Path, **options: Any) -> None:
    init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint), **options)
    MODELS.build(dict(type='Brightness', init_cfg=init_cfg)).init_weights()


def _convert(brightness: Path, checkpoint: Path) -> None:
    run_script('tools/model_converters/kmax_to_remax_mm.py', checkpoint, checkpoint.with_name('new.pth'))


READERS: Dict[str, Callable[[Path, Path], Any]] = {
    'train.py --resume FILE': lambda root, file: _train(root, file, '--resume', file),
    'train.py --resume': lambda root, file: _train(root, file, '--resume'),
    'train.py load_from': lambda root, file: _train(root, file, '--cfg-options', f'load_from={file}'),
    'test.py': _test,
    'image_demo.py': _demo,
    'PanopticInferencer': lambda root, file: PanopticInferencer(str(root / 'tiny.py'), str(file)),
    'PanopticInferencer without config': lambda root, file: PanopticInferencer(weights=str(file)),
    'init_cfg': _initialize,
    'init_cfg with prefix': functools.partial(_initialize, prefix='conv.'),
    'load_checkpoint': lambda root, file: load_checkpoint(MODELS.build(dict(type='Brightness')), str(file)),
    'DetInferencer': lambda root, file: DetInferencer(str(root / 'tiny.py'), str(file), device='cpu'),
    'DetInferencer without config': lambda root, file: DetInferencer(weights=str(file), device='cpu'),
    'kmax_to_remax_mm.py': _convert,
}

# With `config_data`, whole runs of the scripts differ little from those with `config_code`.
PAIRS = [
    pytest.param(
        attack,
        reader,
        marks=[pytest.mark.slow] if attack == 'config_data' and reader.startswith(('train', 'test')) else [])
    for attack in ATTACKS for reader in READERS
]


@pytest.mark.parametrize('hostile, reader', PAIRS, indirect=['hostile'])
def test_checkpoint__runs_no_code(reader: str, brightness: Path, hostile: Path, mark: Path) -> None:
    try:
        READERS[reader](brightness, hostile)
    except (ValueError, SystemExit) as error:  # refused
        assert str(hostile.name) in str(error)
    assert not mark.exists()


@pytest.mark.parametrize('attack', list(ATTACKS))
def test_attacks__leave_a_mark_without_protection(attack: str, mark: Path) -> None:
    checkpoint: dict = dict(meta={}, message_hub=dict(runtime_info={}))
    ATTACKS[attack](checkpoint, mark)
    if attack == 'pickled_call':
        pickle.loads(pickle.dumps(checkpoint))
    else:
        config = Config.fromstring(checkpoint['meta']['config'], '.py')
        if attack == 'config_data':
            MODELS.build(config.model)
    assert mark.exists()


@pytest.mark.parametrize('option', [['--resume', 'FILE'], ['--resume'], ['--cfg-options', 'load_from=FILE']])
@pytest.mark.parametrize('hostile', ['config_code'], indirect=True)
def test_train__goes_on_without_the_code(option: list, brightness: Path, hostile: Path) -> None:
    _train(brightness, hostile, *(word.replace('FILE', str(hostile)) for word in option))
    resumed = torch.load(hostile.parent / 'iter_4.pth', weights_only=True)
    uninterrupted = torch.load(brightness / 'run' / 'iter_4.pth', weights_only=True)
    assert resumed['meta']['iter'] == 4
    if '--resume' in option:
        for name, value in uninterrupted['state_dict'].items():
            torch.testing.assert_close(resumed['state_dict'][name], value, rtol=0, atol=0)


# ---- readers of other files


@pytest.fixture
def server(hostile: Path) -> Iterator[str]:
    """Address of the folder of the hostile checkpoint."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(hostile.parent))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{running.server_port}'
        running.shutdown()


@pytest.mark.parametrize('hostile', ['pickled_call'], indirect=True)
def test_downloaded_checkpoint__runs_no_code(server: str, hostile: Path, mark: Path, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    with pytest.raises(ValueError, match=r'iter_2.pth, but it has a `posix.system`'):
        CheckpointLoader.load_checkpoint(f'{server}/{hostile.name}', 'cpu')
    assert (tmp_path / 'cache').is_dir() and not mark.exists()


@pytest.mark.parametrize('hostile', ['pickled_call'], indirect=True)
@pytest.mark.parametrize('variable',
                         ['TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None])
def test_loader_that_asks_for_code__gets_none(variable: str, hostile: Path, mark: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    # onedl-mmengine's loader does so after a first attempt with `weights_only`.
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    CheckpointLoader.register_scheme(
        'trusting://', lambda path, map_location: torch.load(path[len('trusting://'):], weights_only=False))
    if variable:
        monkeypatch.setenv(variable, '1')
    before = dict(os.environ)
    with pytest.raises(ValueError, match='iter_2.pth, but it has a `posix.system`'):
        CheckpointLoader.load_checkpoint(f'trusting://{hostile}')
    assert not mark.exists() and dict(os.environ) == before


@pytest.mark.parametrize('script, name', [('kmax_to_remax_mm.py', 'theirs.pkl'),
                                          ('deeplab2_to_remax_mm.py', 'theirs.npz')])
def test_converters__run_no_pickled_call(script: str, name: str, tmp_path: Path, mark: Path) -> None:
    call = _Call(os.system, f'touch {mark}')
    if name.endswith('.npz'):
        np.savez(tmp_path / name, weight=np.array([call], dtype=object))
    else:
        (tmp_path / name).write_bytes(pickle.dumps(dict(model=dict(weight=call))))
    with pytest.raises((ValueError, SystemExit)):
        run_script(f'tools/model_converters/{script}', tmp_path / name, tmp_path / 'ours.pth')
    assert not mark.exists()
