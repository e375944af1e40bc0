"""Small synthetic datasets with the folders and file names of Cityscapes, ADE20K and user data.

Each function writes photos and annotations in the original format, which a converter of
``tools/dataset_converters`` reads (:func:`run_converter`), and returns the segments of each image.
"""
import importlib
import json
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from remax_mm.datasets import SCENE_PARSING_CLASSES, ADE20KPanopticMapDataset
from remax_mm.datasets.mini_drawing import DrawnSegment

CONVERTERS = Path(__file__).resolve().parents[2] / 'tools' / 'dataset_converters'
CONTENTS = ('mixed', 'things', 'stuff', 'crowd', 'void')
"""Contents of an image: all kinds of segments, or mainly one kind."""

# cityscapesScripts, helpers/labels.py: some labels that are evaluated, and some that are ignored.
CITYSCAPES_IDS = dict(road=7, building=11, sky=23, person=24, car=26, bicycle=33)
CITYSCAPES_IGNORED = (0, 3, 15, 29, 30003)  # unlabeled, out of roi, bridge, a group of caravans, a trailer

USER_CLASSES = (
    dict(name='lawn', value=9, isthing=0, color=[60, 130, 40]),
    dict(name='hen', value=2, isthing=1, color=[200, 80, 40]),
    dict(name='sky', value=0, isthing=0, color=[90, 150, 220]),
    dict(name='egg', value=300, isthing=1, color=[240, 230, 200]),
)
USER_VOID = 255


class Drawn(NamedTuple):
    """Size (height, width) of an image, and its segments without overlap; all other pixels are void."""
    size: tuple
    segments: List[DrawnSegment]


def draw_segments(rng: np.random.Generator, size: Sequence[int], things: Sequence[str], stuff: Sequence[str],
                  content: str) -> Drawn:
    """Draw rectangular things on horizontal bands of stuff.

    Args:
        rng: Random generator of the positions.
        size: Height and width, at least 32.
        things, stuff: Names of at least two classes each.
        content: One of :data:`CONTENTS`.
    """
    height, width = size
    names = np.full(size, None, object)
    crowd = np.zeros(size, bool)
    number = np.zeros(size, int)

    def paint(name: str, rows: slice, columns: slice, index: int = 0, iscrowd: bool = False) -> None:
        names[rows, columns], crowd[rows, columns], number[rows, columns] = name, iscrowd, index

    horizon = int(rng.integers(height // 3, height // 2))
    if content in ('mixed', 'stuff', 'crowd'):
        paint(stuff[0], slice(0, horizon), slice(None))
        paint(stuff[1], slice(horizon, None), slice(None))
    if content in ('mixed', 'stuff'):
        paint(stuff[-1], slice(horizon - 3, horizon + 4), slice(0, width // 2))
    if content in ('mixed', 'things'):
        left = int(rng.integers(2, width // 4))
        paint(things[0], slice(horizon, height - 4), slice(left, left + width // 6), 1)
        # A second thing of the same class, adjacent to the first.
        paint(things[0], slice(horizon + 2, height - 8), slice(left + width // 6, left + width // 3), 2)
        paint(things[1], slice(3, horizon // 2), slice(left, left + 5), 3)
        paint(things[1], slice(3, 4), slice(width - 2, width - 1), 4)  # a single pixel
    if content in ('mixed', 'crowd'):
        paint(things[-1], slice(height // 2, height - 2), slice(width * 2 // 3, width - 3), iscrowd=True)
    if content == 'crowd':
        paint(things[0], slice(2, height // 3), slice(2, width - 2), iscrowd=True)
        paint(things[-1], slice(height - 9, height - 5), slice(4, 12), 1)
    if content == 'void':
        paint(stuff[0], slice(4, 8), slice(3, 20))
        paint(things[0], slice(height - 9, height - 5), slice(4, 12), 1)
    else:
        names[-1] = None

    keys = sorted({(name, bool(iscrowd), int(index))
                   for name, iscrowd, index in zip(names.ravel(), crowd.ravel(), number.ravel())
                   if name is not None})
    return Drawn(
        tuple(size), [
            DrawnSegment(name, iscrowd, (names == name) & (crowd == iscrowd) & (number == index))
            for name, iscrowd, index in keys
        ])


def draw_photo(rng: np.random.Generator, drawn: Drawn) -> np.ndarray:
    """(H, W, 3) uint8: one color per class, with small differences between segments and noise."""
    photo = np.full((*drawn.size, 3), 128.0)
    for segment in drawn.segments:
        color = np.random.default_rng(list(segment.name.encode())).uniform(20, 235, 3)
        photo[segment.mask] = color + rng.uniform(-15, 15, 3)
    return np.clip(photo + rng.normal(0, 4, photo.shape), 0, 255).astype(np.uint8)


def write_cityscapes(folder: Path,
                     splits: Sequence[str] = ('train', 'val'),
                     contents: Sequence[str] = CONTENTS,
                     size: Sequence[int] = (65, 129),
                     seed: int = 0) -> Dict[str, Dict[str, Drawn]]:
    """Write ``leftImg8bit`` and ``gtFine`` of Cityscapes: an image for each of ``contents``, in two cities.

    Void pixels have different ignored labels.

    Returns:
        Split -> image id -> segments.
    """
    truth: Dict[str, Dict[str, Drawn]] = {}
    for split in splits:
        truth[split] = {}
        for number, content in enumerate(contents):
            rng = np.random.default_rng([seed, len(split), number])
            city = ('aachen', 'bad-honnef')[number % 2]
            image_id = f'{city}_{number:06d}_000019'
            drawn = draw_segments(rng, size, ('car', 'person', 'bicycle'), ('sky', 'road', 'building'),
                                  content)
            values = rng.choice(CITYSCAPES_IGNORED, size).astype(np.uint16)
            for instance, segment in enumerate(drawn.segments):
                label = CITYSCAPES_IDS[segment.name]
                is_stuff = segment.name in ('road', 'building', 'sky')
                values[segment.mask] = label if is_stuff or segment.iscrowd else 1000 * label + instance

            photos, annotations = (folder / part / split / city for part in ('leftImg8bit', 'gtFine'))
            labels = np.where(values < 1000, values, values // 1000).astype(np.uint8)
            _write(photos / f'{image_id}_leftImg8bit.png', draw_photo(rng, drawn))
            _write(annotations / f'{image_id}_gtFine_instanceIds.png', values)
            _write(annotations / f'{image_id}_gtFine_labelIds.png', labels)
            truth[split][image_id] = drawn
    return truth


def write_ade20k(folder: Path,
                 splits: Sequence[str] = ('train', 'val'),
                 contents: Sequence[str] = CONTENTS,
                 size: Sequence[int] = (65, 97),
                 seed: int = 0) -> Dict[str, Dict[str, Drawn]]:
    """Write ``images``, ``annotations`` and ``annotations_instance`` of ADEChallengeData2016.

    ADE20K has no crowd regions; they are drawn as things without an instance, which become void. The semantic
    annotation of one thing is stuff, as at many borders in the real dataset.

    Returns:
        Split -> image id -> segments, without crowd regions.
    """
    thing_classes = ADE20KPanopticMapDataset.METAINFO['thing_classes']
    truth: Dict[str, Dict[str, Drawn]] = {}
    for split in splits:
        truth[split] = {}
        for number, content in enumerate(contents, 1):
            rng = np.random.default_rng([seed, len(split), number])
            drawn = draw_segments(rng, size, ('bed', 'flag', 'airplane'), ('wall', 'shower', 'road, route'),
                                  content)
            semantic = np.zeros(size, np.uint8)
            instances = np.zeros((*size, 3), np.uint8)
            for instance, segment in enumerate(drawn.segments, 1):
                semantic[segment.mask] = SCENE_PARSING_CLASSES.index(segment.name) + 1
                if segment.name in thing_classes and not segment.iscrowd:
                    instances[segment.mask] = thing_classes.index(segment.name) + 1, instance, 0
                    last_thing = segment.mask
            if content == 'mixed':
                semantic[last_thing] = SCENE_PARSING_CLASSES.index('wall') + 1

            image_id = f'ADE_{split}_{number:08d}'
            part = dict(train='training', val='validation')[split]
            _write(folder / 'images' / part / f'{image_id}.jpg', draw_photo(rng, drawn))
            _write(folder / 'annotations' / part / f'{image_id}.png', semantic)
            _write(folder / 'annotations_instance' / part / f'{image_id}.png', instances)
            truth[split][image_id] = drawn._replace(
                segments=[segment for segment in drawn.segments if not segment.iscrowd])
    return truth


def write_user_masks(folder: Path,
                     splits: Sequence[str] = ('train', 'val'),
                     contents: Sequence[str] = CONTENTS,
                     size: Sequence[int] = (65, 97),
                     seed: int = 0) -> Dict[str, Dict[str, Drawn]]:
    """Write user data: ``{images,semantic,instances}/{split}`` and ``classes.json``.

    ``instances_{split}.json`` has the same instances as the PNGs, as RLE. Void has the value ``USER_VOID``.

    Returns:
        Split -> file name of the photo -> segments.
    """
    value_of = {entry['name']: entry['value'] for entry in USER_CLASSES}
    things = [entry['name'] for entry in USER_CLASSES if entry['isthing']]
    stuff = [entry['name'] for entry in USER_CLASSES if not entry['isthing']]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'classes.json').write_text(json.dumps(USER_CLASSES))
    truth: Dict[str, Dict[str, Drawn]] = {}
    for split in splits:
        truth[split], images, annotations = {}, [], []
        for number, content in enumerate(contents):
            rng = np.random.default_rng([seed, len(split), number])
            drawn = draw_segments(rng, size, things, stuff, content)
            name = f'yard {number}'
            images.append(dict(id=number, file_name=f'{name}.jpg', height=size[0], width=size[1]))
            semantic = np.full(size, USER_VOID, np.uint16)
            instances = np.zeros(size, np.uint16)
            for instance, segment in enumerate(drawn.segments):
                semantic[segment.mask] = value_of[segment.name]
                if segment.name in things:
                    instances[segment.mask] = 0 if segment.iscrowd else 700 + instance
                    annotations.append(_instance(len(annotations), number, things, segment))

            _write(folder / 'images' / split / f'{name}.jpg', draw_photo(rng, drawn))
            _write(folder / 'semantic' / split / f'{name}.png', semantic)
            _write(folder / 'instances' / split / f'{name}.png', instances)
            truth[split][f'{name}.jpg'] = drawn
        categories = [dict(id=number + 5, name=name) for number, name in enumerate(things)]
        content = dict(images=images, annotations=annotations, categories=categories)
        (folder / f'instances_{split}.json').write_text(json.dumps(content))
    return truth


def _instance(number: int, image_id: int, things: Sequence[str], segment: DrawnSegment) -> dict:
    rle = coco_mask.encode(np.asfortranarray(segment.mask.astype(np.uint8)))
    return dict(
        id=number,
        image_id=image_id,
        category_id=things.index(segment.name) + 5,
        iscrowd=int(segment.iscrowd),
        area=int(segment.mask.sum()),
        bbox=coco_mask.toBbox(rle).tolist(),
        segmentation=dict(size=rle['size'], counts=rle['counts'].decode()))


def _write(path: Path, values: np.ndarray) -> None:
    """Write an image; channels are in the order R, G, B."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), values[..., ::-1] if values.ndim == 3 else values)


def run_converter(name: str, *arguments: object) -> None:
    """Run ``tools/dataset_converters/<name>.py`` with command line arguments in this process."""
    if str(CONVERTERS) not in sys.path:
        sys.path.insert(0, str(CONVERTERS))
    importlib.import_module(name).main([str(argument) for argument in arguments])
