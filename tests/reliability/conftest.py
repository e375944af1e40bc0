"""Fixtures of the reliability tests."""
from pathlib import Path
from typing import Iterator

import pytest
from mmengine.runner import Runner

from tests.reliability.brightness import run_script, write_data


@pytest.fixture(scope='session', autouse=True)
def _without_slow_reports() -> Iterator[None]:
    """mmengine runs compilers to log their versions, and lays out its config for each checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, '_log_env', lambda *_: None)
        patch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, True), raising=False)
        yield


@pytest.fixture(scope='session')
def brightness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the data, the config ``tiny.py`` and ``run``, a finished training of four iterations."""
    root = tmp_path_factory.mktemp('brightness')
    write_data(root)
    run_script('tools/train.py', root / 'tiny.py', '--work-dir', root / 'run')
    return root
