"""Fixtures of the checkpoint converters and of the test script."""
import json
from collections import Counter
from hashlib import sha256

import cv2
import numpy as np
import pytest
import torch


@pytest.fixture
def release(reference_dir):
    """Weights of a published configuration, all zero and of hardly any memory."""

    def zeros(name):
        shapes = json.loads((reference_dir / f'keys_{name}.json').read_text())
        counts = {key: 'num_batches_tracked' in key for key in shapes}
        return {
            key: torch.zeros((), dtype=torch.int64 if counts[key] else torch.float32).expand(shape)
            for key, shape in shapes.items()
        }

    return zeros


@pytest.fixture
def count_decodes(tmp_path, monkeypatch):
    """A function that returns how often each PNG of a folder was decoded, worker processes included."""
    log = tmp_path / 'decoded.txt'
    log.touch()
    imdecode = cv2.imdecode

    def logged(content, *args, **kwargs):
        with log.open('a') as file:
            file.write(f'{sha256(np.asarray(content).tobytes()).hexdigest()}\n')
        return imdecode(content, *args, **kwargs)

    def count(folder):
        decoded = Counter(log.read_text().split())
        return {path.name: decoded[sha256(path.read_bytes()).hexdigest()] for path in folder.glob('*.png')}

    monkeypatch.setattr(cv2, 'imdecode', logged)
    return count
