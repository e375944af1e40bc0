"""Both sides of the memory benchmark describe the same segments, and growth is measured as it is."""
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.conftest import REPOSITORY

PATH = REPOSITORY / 'tools' / 'analysis_tools' / 'benchmark_targets.py'


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('benchmark_targets', PATH)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def test_pack__both_sides_have_the_same_segments(tool, monkeypatch):
    monkeypatch.setattr(tool, 'SIDE', 129)
    ours, (labels, masks) = tool.pack_ours().make_targets(), tool.pack_mmdet().make_targets()
    assert masks.shape == (60, 129, 129) and (masks.sum(0) == 1).all()
    by_label = torch.argsort(labels)  # mmdet's stuff comes in any order
    assert torch.equal(labels[by_label], ours.labels[0])
    assert torch.equal(masks[by_label, ::4, ::4].int().argmax(0), ours.owner[0])


def test_pack__bytes_of_the_ground_truth(tool, monkeypatch):
    monkeypatch.setattr(tool, 'SIDE', 129)
    assert tool.pack_ours().num_bytes == 129**2
    assert tool.pack_mmdet().num_bytes == (40 + 4) * 129**2  # uint8 masks of the things, an int32 map


@pytest.mark.slow
def test_measure_growth__of_a_known_size(tool):
    ground_truth = tool.GroundTruth(3 * 2**20, lambda: np.ones(200 * 2**20, np.uint8))
    memory = tool.measure_growth(lambda: ground_truth)
    assert memory.ground_truth == 3 and memory.targets == pytest.approx(200, abs=5)
    assert memory.total == memory.ground_truth + memory.targets


@pytest.mark.slow
def test_benchmark_targets__at_most_a_tenth(tmp_path):
    path = tmp_path / 'memory.json'
    subprocess.run([sys.executable, str(PATH), '--json', str(path)], check=True, cwd=REPOSITORY)
    memory = json.loads(path.read_text())
    assert memory['mmdet']['targets'] > 60 * 1281**2 * 8 / 2**20  # its masks are int64
    assert memory['mmdet']['targets'] >= 10 * memory['ours']['targets'] > 0
