"""Drawn images with masks, in the layout of docs/own_data.md: an example of the conversion of own data."""
import json
from pathlib import Path
from typing import Any, Dict, List, Tuple

import cv2
import numpy as np

from remax_mm.panoptic_format import list_some
from remax_mm.panoptic_format.json_files import write_atomically
from .mini_drawing import STUFF, THINGS, Scene, draw_scene
from .mini_panoptic import MiniPanopticMapDataset

VOID = 255
SPLITS = ('train', 'val')


def write_own_example(folder: Path, num_train: int = 400, num_val: int = 64, size: int = 129) -> None:
    """Write the images of the mini dataset with semantic and instance masks.

    Args:
        folder: Gets ``classes.json`` and ``{images,semantic,instances}/{train,val}/``; created if it does not
            exist. Void has the value ``VOID`` in the semantic masks.
        num_train, num_val: Images per split.
        size: Height and width in pixels, at least 64.

    Raises:
        ValueError: a number is out of range.
        FileExistsError: the folder is not empty.
    """
    if size < 64 or num_train < 1 or num_val < 1:
        raise ValueError('Expected at least one image per split and a size of at least 64 pixels, but got '
                         f'train={num_train}, val={num_val}, size={size}')
    if folder.exists() and any(folder.iterdir()):
        present = list_some(path.name for path in folder.iterdir())
        raise FileExistsError(f'Expected a new or an empty folder at {folder}, but it has {present}')
    classes = example_classes()
    lines = ',\n'.join(f'  {json.dumps(entry)}' for entry in classes)
    write_atomically(folder / 'classes.json', f'[\n{lines}\n]\n'.encode())
    value_of = {entry['name']: entry['value'] for entry in classes}
    for split_number, (split, count) in enumerate(zip(SPLITS, (num_train, num_val))):
        for number in range(1, count + 1):
            scene = draw_scene(np.random.default_rng([0, split_number, number]), size)
            semantic, instances = scene_masks(scene, value_of)
            for kind, suffix, values in (('images', 'jpg', scene.image[..., ::-1]),
                                         ('semantic', 'png', semantic), ('instances', 'png', instances)):
                _write_image(folder / kind / split / f'{number:04d}.{suffix}', values)


def example_classes() -> List[Dict[str, Any]]:
    """The class file: names, values, ``isthing`` and colors."""
    metainfo = MiniPanopticMapDataset.METAINFO
    return [
        dict(name=name, value=value, isthing=int(name in THINGS), color=list(color))
        for value, (name, color) in enumerate(zip([*THINGS, *STUFF], metainfo['palette']))
    ]


def scene_masks(scene: Scene, value_of: Dict[str, int]) -> Tuple[np.ndarray, np.ndarray]:
    """Masks of a scene.

    Args:
        scene: Image and segments.
        value_of: Class value by class name.

    Returns:
        (H, W) uint8 class values, and (H, W) uint8 instance numbers from 1; stuff and crowds have 0.
    """
    semantic = np.full(scene.image.shape[:2], VOID, np.uint8)
    instances = np.zeros(scene.image.shape[:2], np.uint8)
    for number, segment in enumerate(scene.segments, start=1):
        semantic[segment.mask] = value_of[segment.name]
        instances[segment.mask] = number if segment.name in THINGS and not segment.iscrowd else 0
    return semantic, instances


def _write_image(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), values):
        raise OSError(f'Cannot write {path}')
