"""Wrong checkpoints stop a run with one sentence: broken weights, weights of another model, other files."""
import functools
import math
import re
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import pytest
import torch

from remax_mm.apis import PanopticInferencer
from tests.reliability.brightness import RUN_SCRIPT, RUN_SCRIPT_ENVIRONMENT, run_script


def _resume(root: Path, file: Path, out: Path) -> None:
    run_script('tools/train.py', root / 'tiny.py', '--work-dir', out, '--resume', file)


def _load_from(root: Path, file: Path, out: Path) -> None:
    run_script('tools/train.py', root / 'tiny.py', '--work-dir', out, '--cfg-options', f'load_from={file}')


def _test(root: Path, file: Path, out: Path) -> None:
    run_script('tools/test.py', root / 'tiny.py', file, '--work-dir', out)


def _inferencer(root: Path, file: Path, out: Path) -> PanopticInferencer:
    return PanopticInferencer(root / 'tiny.py', str(file), 'cpu')


READERS: Dict[str, Callable[[Path, Path, Path], Any]] = {
    'resume': _resume,
    'load_from': _load_from,
    'test.py': _test,
    'PanopticInferencer': _inferencer,
}


def _changed(brightness: Path, path: Path, change: Callable[[dict], Optional[dict]]) -> Path:
    """A checkpoint after two iterations, with other content: changed, or returned by ``change``."""
    content = torch.load(brightness / 'run' / 'iter_2.pth', weights_only=True)
    returned = change(content)
    torch.save(content if returned is None else returned, path)
    return path


def _sentence(reader: str, *arguments: Path) -> str:
    """The error of a reader."""
    with pytest.raises(ValueError) as caught:
        READERS[reader](*arguments)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def _break_bias(content: dict, value: float = math.nan) -> None:
    content['state_dict']['conv.bias'].fill_(value)


@pytest.mark.parametrize('reader', list(READERS))
@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_weights__not_finite(value: float, reader: str, brightness: Path, tmp_path: Path) -> None:
    file = _changed(brightness, tmp_path / 'a.pth', functools.partial(_break_bias, value=value))
    assert _sentence(
        reader, brightness, file, tmp_path /
        'out') == (f'Expected {file} to have finite weights, but 1 of 2 are NaN or infinite (conv.bias)')


@pytest.mark.slow
def test_weights__exit_code_if_not_finite(brightness: Path, tmp_path: Path) -> None:
    file = _changed(brightness, tmp_path / 'a.pth', _break_bias)
    done = subprocess.run([*RUN_SCRIPT, 'tools/test.py', brightness / 'tiny.py', file],
                          env=RUN_SCRIPT_ENVIRONMENT,
                          cwd=tmp_path,
                          capture_output=True,
                          text=True)
    assert done.returncode == 1 and 'finite weights' in done.stderr.splitlines()[-1]


def _rename_all(content: dict) -> None:
    content['state_dict'] = {f'layer.{name}': value for name, value in content['state_dict'].items()}


def _rename_bias(content: dict) -> None:
    content['state_dict']['offset'] = content['state_dict'].pop('conv.bias')


def _widen(content: dict) -> None:
    content['state_dict']['conv.weight'] = torch.zeros(1, 3, 3, 3)


def _widen_all(content: dict) -> None:
    content['state_dict'] = {name: torch.zeros(7) for name in content['state_dict']}


def _add_auxiliary(content: dict) -> None:
    content['state_dict']['auxiliary.weight'] = torch.ones(1)


@pytest.mark.parametrize(
    'change, reason', [
        (_rename_all,
         r'2 are missing \(conv.weight, conv.bias\), 0 have another shape, and 2 are not in the model '
         r'\(layer.conv.weight, layer.conv.bias\)'),
        (_widen_all, r'0 are missing, 2 have another shape \(conv.weight \(7,\) instead of \(1, 3, 1, 1\), '),
    ],
    ids=['names', 'shapes'])
def test_load_from__no_weight_fits(change: Callable, reason: str, brightness: Path, tmp_path: Path) -> None:
    file = _changed(brightness, tmp_path / 'a.pth', change)
    sentence = _sentence('load_from', brightness, file, tmp_path / 'out')
    assert re.match(f'Expected {file} to have weights of the model, but none fits: {reason}', sentence)


@pytest.mark.parametrize(
    'change, lines', [
        (_rename_bias, ['Not in the checkpoint: conv.bias', 'Not in the model: offset']),
        (_widen, ['Of another shape: conv.weight (1, 3, 3, 3) instead of (1, 3, 1, 1)']),
        (_add_auxiliary, ['Not in the model: auxiliary.weight']),
    ],
    ids=['renamed', 'widened', 'added'])
def test_load_from__lists_what_does_not_fit(change: Callable, lines: list, brightness: Path,
                                            tmp_path: Path) -> None:
    file = _changed(brightness, tmp_path / 'a.pth', change)
    READERS['load_from'](brightness, file, tmp_path / 'out')
    log, = (tmp_path / 'out').glob('*/*.log')
    listed = log.read_text().split(f' of 2 weights come from {file}.\n')[1].splitlines()[:len(lines) + 1]
    assert listed[:-1] == lines and 'INFO' in listed[-1]
    with pytest.raises(ValueError, match='to be a checkpoint of this model, but'):
        READERS['resume'](brightness, file, tmp_path / 'out')


def test_load_from__of_a_parallel_model(brightness: Path, tmp_path: Path) -> None:

    def add_prefix(content: dict) -> dict:
        return dict(state_dict={f'module.{name}': value for name, value in content['state_dict'].items()})

    file = _changed(brightness, tmp_path / 'a.pth', add_prefix)
    READERS['load_from'](brightness, file, tmp_path / 'out')
    log, = (tmp_path / 'out').glob('*/*.log')
    assert 'weights come from' not in log.read_text()
    READERS['test.py'](brightness, file, tmp_path / 'out')
    inferencer = READERS['PanopticInferencer'](brightness, file, tmp_path / 'out')
    expected = torch.load(brightness / 'run' / 'iter_2.pth', weights_only=True)['state_dict']
    torch.testing.assert_close(dict(inferencer.model.state_dict()), dict(expected), rtol=0, atol=0)


# ---- files that are no checkpoint, or not all of one

CONTENTS: Dict[str, Callable[[Path], Any]] = {
    'it is empty': lambda path: path.write_bytes(b''),
    'torch.save did not write this file': lambda path: path.write_text('loss: 0.5'),
    'it has a list': lambda path: torch.save([torch.zeros(1)], path),
    'it has a Tensor': lambda path: torch.save(torch.zeros(1), path),
    'it has none': lambda path: torch.save(dict(epoch=1), path),
}


@pytest.mark.parametrize('reader', list(READERS))
@pytest.mark.parametrize('reason', list(CONTENTS))
def test_file__that_is_no_checkpoint(reason: str, reader: str, brightness: Path, tmp_path: Path) -> None:
    file = tmp_path / 'a.pth'
    CONTENTS[reason](file)
    sentence = _sentence(reader, brightness, file, tmp_path / 'out')
    assert sentence.startswith('Expected ') and str(file) in sentence and sentence.endswith(f'but {reason}')


@pytest.mark.parametrize('reader', list(READERS))
def test_file__of_weights_only(reader: str, brightness: Path, tmp_path: Path) -> None:
    file = _changed(brightness, tmp_path / 'a.pth', lambda content: content['state_dict'])
    if reader == 'resume':
        assert _sentence(reader, brightness, file, tmp_path / 'out') == (
            f'Expected {file} to be a checkpoint to resume from, but it has no meta and no message_hub '
            'and no optimizer; to start a new training from its weights, use `load_from`')
    else:
        READERS[reader](brightness, file, tmp_path / 'out')
