"""Drawn datasets: synthetic images with panoptic ground truth, for demos and tests without a download."""
import json
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Tuple

import cv2
import numpy as np
from mmdet.registry import DATASETS

from remax_mm.panoptic_format import MAX_ID, ConvertedImage, SegmentLabel, write_json, write_split
from .crowded_drawing import CROWDED_PALETTE, CROWDED_STUFF, CROWDED_THINGS, draw_crowded_scene
from .mini_drawing import STUFF, THINGS, Rng, Scene, draw_scene
from .panoptic_dataset import PanopticMapDataset

SETTINGS_FILE = 'mini_panoptic.json'
SPLITS = ('train', 'val', 'test')  # the position of a split is part of the seed of its images
_FORMAT_VERSION = 1  # in the settings file, so that data of another version of this code is not reused


class Preset(NamedTuple):
    """Scenes and classes of a drawn dataset.

    Attributes:
        draw_scene: Draws a scene of a size.
        category_ids: By class name. They have gaps, as in COCO, to detect code that uses an id as a label.
        num_things: The first classes are things.
        train, val, size: Images per split, and height and width, if nothing else is asked for.
    """
    draw_scene: Callable[[Rng, int], Scene]
    category_ids: Mapping[str, int]
    num_things: int
    train: int
    val: int
    size: int


PRESETS = dict(
    mini=Preset(
        draw_scene,
        dict(zip([*THINGS, *STUFF], [1, 3, 4, 8, 11, 17, 18, 92, 95, 105, 122, 149])),
        len(THINGS),
        train=400,
        val=64,
        size=129),
    crowded=Preset(
        draw_crowded_scene, {
            name: 2 * i + 1
            for i, name in enumerate([*CROWDED_THINGS, *CROWDED_STUFF])
        },
        len(CROWDED_THINGS),
        train=2000,
        val=64,
        size=257))


@DATASETS.register_module()
class MiniPanopticMapDataset(PanopticMapDataset):
    """The mini dataset that :func:`write_mini_panoptic` writes: 7 thing and 5 stuff classes.

    Arguments and records are those of :class:`PanopticMapDataset`.
    """

    METAINFO = dict(
        classes=(*THINGS, *STUFF),
        thing_classes=tuple(THINGS),
        stuff_classes=tuple(STUFF),
        palette=[
            *(thing.color for thing in THINGS.values()), (205, 170, 120), (40, 100, 160), (150, 75, 55),
            (60, 130, 40), (210, 215, 225)
        ])


@DATASETS.register_module()
class CrowdedPanopticMapDataset(PanopticMapDataset):
    """The preset ``crowded`` of :func:`write_mini_panoptic`: 35 thing and 9 stuff classes.

    Arguments and records are those of :class:`PanopticMapDataset`.
    """

    METAINFO = dict(
        classes=(*CROWDED_THINGS, *CROWDED_STUFF),
        thing_classes=tuple(CROWDED_THINGS),
        stuff_classes=tuple(CROWDED_STUFF),
        palette=CROWDED_PALETTE)


def write_mini_panoptic(folder: Path,
                        num_train: int = 400,
                        num_val: int = 64,
                        size: int = 129,
                        seed: int = 0,
                        num_test: int = 0,
                        preset: str = 'mini',
                        processes: int = 1) -> bool:
    """Write a drawn dataset in the COCO panoptic format; the same settings give the same bytes.

    An image depends only on seed, split and number, so a larger dataset starts with the smaller one. A split
    ``test`` is added to a folder that has the other two.

    Args:
        folder: Gets ``images/<split>/*.jpg``, ``annotations/panoptic_<split>/*.png``,
            ``annotations/panoptic_<split>.json`` and a file with these settings.
        num_train: Images in the split ``train``.
        num_val: Images in the split ``val``.
        size: Height and width in pixels, at least 64.
        seed: Seed of all random numbers.
        num_test: Images in the split ``test``; 0 writes no such split, and keeps an existing one.
        preset: Key of ``PRESETS``: scenes and classes.
        processes: Number of processes that draw.

    Returns:
        Whether files were written; False if the folder contains this dataset already.

    Raises:
        ValueError: a number is out of range.
        FileExistsError: the folder contains other files, or a mini dataset with other settings.
    """
    if size < 64 or num_train < 1 or num_val < 1 or num_test < 0 or seed < 0:
        raise ValueError('Expected at least one image for training and validation, a size of at least 64 '
                         'pixels, and numbers of at least 0 for the seed and the test split, but got '
                         f'train={num_train}, val={num_val}, test={num_test}, size={size}, seed={seed}')
    settings: Dict[str, Any] = dict(
        preset=preset,
        train=num_train,
        val=num_val,
        test=num_test,
        size=size,
        seed=seed,
        version=_FORMAT_VERSION)
    folder = Path(folder)
    settings['test'], written = _find_splits(folder, settings)
    missing = [split for split in SPLITS if settings[split] and split not in written]
    if not missing:
        return False

    # With the settings in the folder from the start, an interrupted run can be started again.
    write_json(folder / SETTINGS_FILE, dict(settings, complete=False))
    for split in missing:
        image_folder = folder / 'images' / split
        image_folder.mkdir(parents=True, exist_ok=True)
        write_split(
            folder / 'annotations' / f'panoptic_{split}.json',
            partial(_write_photo, image_folder, [seed, SPLITS.index(split)], size, preset),
            range(1, settings[split] + 1),
            _list_categories(preset),
            processes=processes,
            overwrite=True)
    write_json(folder / SETTINGS_FILE, dict(settings, complete=True))
    return True


def _find_splits(folder: Path, settings: Dict[str, Any]) -> Tuple[int, List[str]]:
    """The size of the test split to have in the end, and the splits that the folder contains completely.

    Other content of the folder is an error.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return settings['test'], []
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise FileExistsError(f'Expected an empty folder or a mini dataset at {folder}, but there are other '
                              f'files (no {SETTINGS_FILE}); nothing was written')
    # Older datasets have no test split and no preset.
    found = {'test': 0, 'preset': 'mini', **json.loads(path.read_text())}
    complete = found.pop('complete', False)
    num_test = settings['test'] or found['test']
    if dict(found, test=found['test'] or num_test) != dict(settings, test=num_test):
        raise FileExistsError(f'Expected a mini dataset with the settings {settings} at {folder}, but it was '
                              f'written with {found}; remove it or choose another folder')
    return num_test, [split for split in SPLITS if complete and found[split]]


def _write_photo(image_folder: Path, seed: List[int], size: int, preset: str, number: int) -> ConvertedImage:
    """Draw an image, write its photo and return its ground truth."""
    rng = np.random.default_rng([*seed, number])
    scene = PRESETS[preset].draw_scene(rng, size)
    ids, labels = assign_segment_ids(rng, scene, PRESETS[preset].category_ids)
    path = image_folder / f'{number:012d}.jpg'
    if not cv2.imwrite(str(path), scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95]):
        raise OSError(f'Cannot write {path}')
    return ConvertedImage(number, path.name, f'{path.stem}.png', ids, labels)


def assign_segment_ids(rng: Rng, scene: Scene,
                       category_ids: Mapping[str, int]) -> Tuple[np.ndarray, List[SegmentLabel]]:
    """Give the segments of a scene random ids.

    Returns:
        (H, W) int32 segment ids, 0 where unlabeled, and the label of each segment.
    """
    ids = np.zeros(scene.image.shape[:2], np.int32)
    labels = []
    new_ids = rng.choice(MAX_ID, len(scene.segments), replace=False) + 1
    for segment, segment_id in zip(scene.segments, new_ids):
        ids[segment.mask] = segment_id
        labels.append(SegmentLabel(int(segment_id), category_ids[segment.name], segment.iscrowd))
    return ids, labels


def _list_categories(preset: str) -> List[dict]:
    category_ids, num_things = PRESETS[preset].category_ids, PRESETS[preset].num_things
    return [
        dict(id=category_id, name=name, isthing=int(number < num_things), supercategory=preset)
        for number, (name, category_id) in enumerate(category_ids.items())
    ]
