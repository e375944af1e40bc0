"""Shared fixtures."""
import os
from pathlib import Path

import pytest
import torch

import remax_mm  # noqa: F401  (registers the modules, makes mmdet importable)

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def reference_dir() -> Path:
    """Folder with numbers measured on the public kMaX-DeepLab code; not part of the package."""
    folder = Path(os.environ.get('REMAX_MM_REFERENCE', REPOSITORY.parent / 'shared'))
    if not (folder / 'golden').is_dir():
        pytest.skip(f'reference numbers are not at {folder} (set REMAX_MM_REFERENCE)')
    return folder
