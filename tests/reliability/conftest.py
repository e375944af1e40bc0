"""Fixtures of the reliability tests."""
from pathlib import Path

import pytest

from tests.reliability.brightness import run_script, write_data


@pytest.fixture(scope='session')
def brightness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the data, the config ``tiny.py`` and ``run``, a finished training of four iterations."""
    root = tmp_path_factory.mktemp('brightness')
    write_data(root)
    run_script('tools/train.py', root / 'tiny.py', '--work-dir', root / 'run')
    return root
