"""The mini set: drawn images with panoptic ground truth, for demos and tests that need no download."""
import json
from pathlib import Path
from typing import List, Tuple

import cv2
import numpy as np
from mmdet.registry import DATASETS

from remax_mm.panoptic_format import SegmentLabel, describe_segments, encode_segment_ids, write_json
from .mini_drawing import STUFF, THINGS, Scene, draw_scene
from .panoptic_dataset import PanopticMapDataset

SETTINGS_FILE = 'mini_panoptic.json'
_FORMAT_VERSION = 1  # part of the settings: a folder drawn by other code is not reused

# Ids with gaps, as in COCO, so that nothing works that takes an id for a label.
_CATEGORY_IDS = dict(zip([*THINGS, *STUFF], [1, 3, 4, 8, 11, 17, 18, 92, 95, 105, 122, 149]))


@DATASETS.register_module()
class MiniPanopticMapDataset(PanopticMapDataset):
    """The mini set as :func:`write_mini_panoptic` writes it: 7 kinds of things, 5 kinds of stuff."""

    METAINFO = dict(
        classes=(*THINGS, *STUFF),
        thing_classes=tuple(THINGS),
        stuff_classes=tuple(STUFF),
        palette=[
            *(thing.color for thing in THINGS.values()), (205, 170, 120), (40, 100, 160), (150, 75, 55),
            (60, 130, 40), (210, 215, 225)
        ])


def write_mini_panoptic(folder: Path,
                        num_train: int = 400,
                        num_val: int = 64,
                        size: int = 129,
                        seed: int = 0) -> bool:
    """Write the mini set in COCO's panoptic format; the same settings give the same bytes.

    An image depends on seed, split and number alone, so a larger set begins with the smaller one.

    Args:
        folder: Gets ``images/{train,val}/*.jpg``, ``annotations/panoptic_{train,val}/*.png``,
            ``annotations/panoptic_{train,val}.json`` and a file with these settings.
        num_train: Images in the split ``train``.
        num_val: Images in the split ``val``.
        size: Height and width in pixels, at least 64.
        seed: Seed of everything that is drawn.

    Returns:
        Whether something was written; False if the folder holds this very set.

    Raises:
        ValueError: a number is out of range.
        FileExistsError: the folder holds something else, or a mini set of other settings.
    """
    if size < 64 or num_train < 1 or num_val < 1 or seed < 0:
        raise ValueError('Expected at least one image per split, a size of at least 64 pixels and a seed of '
                         f'at least 0, but got train={num_train}, val={num_val}, size={size}, seed={seed}')
    settings = dict(train=num_train, val=num_val, size=size, seed=seed, version=_FORMAT_VERSION)
    if _is_complete(Path(folder), settings):
        return False

    # The settings stand there from the start, so that an interrupted run can be taken up again.
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS_FILE, dict(settings, complete=False))
    for split_number, (split, count) in enumerate((('train', num_train), ('val', num_val))):
        _write_split(folder, split, [seed, split_number], count, size)
    write_json(folder / SETTINGS_FILE, dict(settings, complete=True))
    return True


def _is_complete(folder: Path, settings: dict) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise FileExistsError(f'Expected an empty folder or a mini set at {folder}, but there is something '
                              f'else (no {SETTINGS_FILE}); nothing was written')
    found = json.loads(path.read_text())
    complete = found.pop('complete', False)
    if found != settings:
        raise FileExistsError(f'Expected a mini set of the settings {settings} at {folder}, but it was '
                              f'written with {found}; remove it or name another folder')
    return complete


def _write_split(folder: Path, split: str, seed: List[int], count: int, size: int) -> None:
    image_folder, png_folder = folder / 'images' / split, folder / 'annotations' / f'panoptic_{split}'
    image_folder.mkdir(parents=True, exist_ok=True)
    png_folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        rng = np.random.default_rng([*seed, number])
        scene = draw_scene(rng, size)
        ids, labels = assign_segment_ids(rng, scene)
        segments_info = describe_segments(ids, labels)

        stem = f'{number:012d}'
        png_path = png_folder / f'{stem}.png'
        image_path = image_folder / f'{stem}.jpg'
        written = cv2.imwrite(str(image_path), scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        if not written or not cv2.imwrite(str(png_path), encode_segment_ids(ids, png_path)):
            raise OSError(f'Cannot write {image_path} or {png_path}')
        images.append(dict(id=number, file_name=f'{stem}.jpg', height=size, width=size))
        annotations.append(dict(image_id=number, file_name=f'{stem}.png', segments_info=segments_info))

    categories = [
        dict(id=category_id, name=name, isthing=int(name in THINGS), supercategory='mini')
        for name, category_id in _CATEGORY_IDS.items()
    ]
    write_json(
        folder / 'annotations' / f'panoptic_{split}.json',
        dict(
            info=dict(description='Drawn panoptic mini set'),
            images=images,
            annotations=annotations,
            categories=categories))


def assign_segment_ids(rng: np.random.Generator, scene: Scene) -> Tuple[np.ndarray, List[SegmentLabel]]:
    """Segment ids (H, W) int32 by chance, 0 where unlabeled, and what they are."""
    ids = np.zeros(scene.image.shape[:2], np.int32)
    labels = []
    new_ids = rng.choice(256**3 - 1, len(scene.segments), replace=False) + 1
    for segment, segment_id in zip(scene.segments, new_ids):
        ids[segment.mask] = segment_id
        labels.append(SegmentLabel(int(segment_id), _CATEGORY_IDS[segment.name], segment.iscrowd))
    return ids, labels
