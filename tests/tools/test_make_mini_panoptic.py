"""The command line around the mini set."""
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / 'tools' / 'dataset_converters' / 'make_mini_panoptic.py'


def test_make_mini_panoptic__writes_once_and_refuses_other_settings(tmp_path, monkeypatch, capsys):

    def run(*arguments):
        size = ['--train', '2', '--val', '1', '--size', '65']
        monkeypatch.setattr('sys.argv', [str(SCRIPT), str(tmp_path / 'mini'), *size, *arguments])
        runpy.run_path(str(SCRIPT), run_name='__main__')
        return capsys.readouterr().out

    assert 'Wrote 2 training and 1 validation images of 65 x 65' in run()
    assert len(list(tmp_path.rglob('*.jpg'))) == len(list(tmp_path.rglob('*.png'))) == 3
    assert 'nothing to do' in run()
    with pytest.raises(SystemExit, match='error: Expected a mini dataset with the settings'):
        run('--seed', '1')
