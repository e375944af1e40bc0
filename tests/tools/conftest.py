"""Fixtures of the test script."""
from collections import Counter
from hashlib import sha256

import cv2
import numpy as np
import pytest


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
