"""Shared fixtures."""
import json
import os
from pathlib import Path
from typing import Callable, Dict

import pytest
import torch

import remax_mm  # noqa: F401  (registers the modules, makes mmdet importable)

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def reference_dir() -> Path:
    """Folder with numbers computed with the public kMaX-DeepLab code; its README.md describes them."""
    return REPOSITORY / 'tests' / 'data' / 'reference'


@pytest.fixture
def release(reference_dir: Path) -> Callable[[str], Dict[str, torch.Tensor]]:
    """A function that returns the weights of a published configuration, all zero, with little memory."""

    def zeros(name: str) -> Dict[str, torch.Tensor]:
        shapes = json.loads((reference_dir / f'keys_{name}.json').read_text())
        counts = {key: 'num_batches_tracked' in key for key in shapes}
        return {
            key: torch.zeros((), dtype=torch.int64 if counts[key] else torch.float32).expand(shape)
            for key, shape in shapes.items()
        }

    return zeros


@pytest.fixture(scope='session')
def coco_sample() -> Path:
    """Folder with two COCO val2017 photos and their panoptic annotations, which we may not distribute."""
    folder = Path(os.environ.get('COCO_SAMPLE', REPOSITORY / 'data' / 'coco_sample'))
    if not folder.is_dir():
        pytest.skip(f'two COCO val2017 photos and their annotations are not at {folder} (set COCO_SAMPLE)')
    return folder
