"""Arguments and errors that several tools share."""
import os
import signal
from pathlib import Path

import pytest
from mmengine.config import Config

from remax_mm.apis.command_line import (add_panoptic_file_arguments, add_test_time_arguments,
                                        apply_test_time_arguments, exit_on_error, exit_on_sigterm,
                                        make_parser)


def _config() -> Config:
    return Config(
        dict(model=dict(type='Detector'), test_dataloader=dict(dataset=dict(pipeline=[dict(type='Pack')]))))


@pytest.mark.parametrize('arguments, model',
                         [([], 'Detector'), (['--tta'], 'PanopticTTAModel'),
                          (['--tile', '65', '97', '--overlap', '8'], 'TiledPanopticModel')])
def test_apply_test_time_arguments(arguments, model):
    parser = make_parser('a tool')
    add_test_time_arguments(parser)
    config = apply_test_time_arguments(parser.parse_args(arguments), _config())
    assert config.model.type == model
    if arguments[1:]:
        assert list(config.model.tile_size) == [65, 97] and config.model.overlap == 8


def test_add_test_time_arguments__one_method_only(capsys):
    parser = make_parser('a tool')
    add_test_time_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(['--tta', '--tile', '65'])
    assert 'not allowed with' in capsys.readouterr().err


def test_add_panoptic_file_arguments__defaults():
    parser = make_parser('a tool')
    add_panoptic_file_arguments(parser)
    args = parser.parse_args(['--gt-json', 'gt.json', '--pred-json', 'pred.json'])
    assert vars(args) == dict(
        gt_json=Path('gt.json'),
        gt_folder=None,
        pred_json=Path('pred.json'),
        pred_folder=None,
        processes=1,
        allow_unlisted_ids=False)


@pytest.mark.parametrize('error', [ValueError('bad value'), FileNotFoundError('no file')])
def test_exit_on_error__one_line_for_bad_input(error):
    with pytest.raises(SystemExit, match=f'^error: {error}$'), exit_on_error():
        raise error


def test_exit_on_error__other_errors_keep_their_traceback():
    with pytest.raises(KeyError), exit_on_error():
        raise KeyError('a bug')


def test_exit_on_sigterm__as_an_exception():
    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, exit_on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigtimedwait([], 5)  # is interrupted by the handler
    assert ended.value.code == 143 and signal.getsignal(signal.SIGTERM) is former
