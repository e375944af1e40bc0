"""The command lines of the checkpoint converters; tests/model_converters has what they compute."""
import runpy

import numpy as np
import pytest
import torch
from mmengine.config import Config

from tests.conftest import REPOSITORY
from tests.deeplab2_variables import convnext, kmax_deeplab, numbered

TOOLS = REPOSITORY / 'tools' / 'model_converters'
CONVNEXT_T = REPOSITORY / 'configs' / 'kmax' / 'kmax_convnext-t_8xb8-150k_coco-1281.py'


@pytest.fixture(scope='module')
def archive(tmp_path_factory):
    """Variables of a ConvNeXt-T in a file."""
    path = tmp_path_factory.mktemp('theirs') / 'convnext.npz'
    np.savez(path, **numbered(kmax_deeplab(convnext((3, 3, 9, 3), (96, 192, 384, 768)), 133)))
    return path


def _run(tool, *arguments):
    runpy.run_path(str(TOOLS / f'{tool}.py'))['main']([str(argument) for argument in arguments])


def test_deeplab2_to_remax_mm__writes_and_overwrites_with_force(archive, tmp_path, capsys):
    target = tmp_path / 'new' / 'ours.pth'
    target.parent.mkdir()
    target.write_text('keep')
    with pytest.raises(SystemExit, match=f'^error: {target} exists; --force overwrites it$'):
        _run('deeplab2_to_remax_mm', archive, target)
    assert target.read_text() == 'keep'

    _run('deeplab2_to_remax_mm', archive, target, '--force', '--config', CONVNEXT_T)
    checkpoint = torch.load(target, weights_only=True)
    entries = len(checkpoint['state_dict'])
    assert capsys.readouterr().out == f'Wrote {entries} weights for 133 classes to {target}\n'
    assert checkpoint['meta']['cfg'] == Config.fromfile(CONVNEXT_T).pretty_text
    assert [path.name for path in target.parent.iterdir()] == ['ours.pth']


@pytest.mark.parametrize('tool, name', [('deeplab2_to_remax_mm', 'none.npz'),
                                        ('kmax_to_remax_mm', 'none.pth')])
def test_tools__exit_with_the_missing_file(tmp_path, tool, name):
    with pytest.raises(SystemExit, match=f'^error: Expected a checkpoint at .*{name}'):
        _run(tool, tmp_path / name, tmp_path / 'ours.pth')
    with pytest.raises(SystemExit, match='^error: Expected a config file at none.py'):
        _run(tool, tmp_path / name, tmp_path / 'ours.pth', '--config', 'none.py')
    assert not (tmp_path / 'ours.pth').exists()


def test_kmax_to_remax_mm__writes(release, tmp_path, capsys):
    torch.save(dict(model=release('r50_coco')), tmp_path / 'theirs.pth')
    _run('kmax_to_remax_mm', tmp_path / 'theirs.pth', tmp_path / 'ours.pth')
    assert capsys.readouterr().out == f'Wrote 1417 weights for 133 classes to {tmp_path}/ours.pth\n'
