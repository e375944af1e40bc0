import json

import cv2
import numpy as np
import pytest

from remax_mm.datasets import write_own_example
from remax_mm.datasets.mini_drawing import STUFF, THINGS, draw_scene
from remax_mm.datasets.own_example import VOID


def test_write_own_example__masks_are_those_of_the_scene(tmp_path):
    write_own_example(tmp_path / 'own', 2, 1, 64)
    classes = json.loads((tmp_path / 'own' / 'classes.json').read_text())
    assert [entry['name'] for entry in classes] == [*THINGS, *STUFF]
    value_of = {entry['name']: entry['value'] for entry in classes}
    assert sorted(path.name
                  for path in (tmp_path / 'own' / 'images' / 'train').iterdir()) == ['0001.jpg', '0002.jpg']

    scene = draw_scene(np.random.default_rng([0, 0, 2]), 64)
    semantic, instances = (
        cv2.imread(str(tmp_path / 'own' / kind / 'train' / '0002.png'), cv2.IMREAD_UNCHANGED)
        for kind in ('semantic', 'instances'))
    covered = np.zeros((64, 64), bool)
    numbers = set()
    for segment in scene.segments:
        covered |= segment.mask
        assert (semantic[segment.mask] == value_of[segment.name]).all()
        number, = set(instances[segment.mask].tolist())
        is_instance = segment.name in THINGS and not segment.iscrowd
        assert (number > 0) == is_instance and (not number or number not in numbers)
        numbers.add(number)
    assert (semantic[~covered] == VOID).all() and (instances[~covered] == 0).all()


def test_write_own_example__bad_input(tmp_path):
    with pytest.raises(ValueError, match='train=0, val=1, size=64'):
        write_own_example(tmp_path / 'own', 0, 1, 64)
    (tmp_path / 'mine.txt').touch()
    with pytest.raises(FileExistsError, match="a new or an empty folder at .* has 'mine.txt'"):
        write_own_example(tmp_path, 1, 1, 64)
