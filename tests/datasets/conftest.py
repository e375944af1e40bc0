"""A small dataset in the COCO panoptic format, with things, stuff, crowd regions and void."""
import json
from pathlib import Path
from typing import Callable, Dict, Iterator, NamedTuple

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

# In the order of the JSON, which differs from the order of the labels in METAINFO.
CATEGORIES = [
    dict(id=200, name='grass', isthing=0, supercategory='ground'),
    dict(id=7, name='dog', isthing=1, supercategory='animal'),
    dict(id=3, name='cat', isthing=1, supercategory='animal'),
    dict(id=150, name='sky', isthing=0, supercategory='air'),
]
METAINFO = dict(
    classes=('cat', 'dog', 'sky', 'grass'),
    thing_classes=('cat', 'dog'),
    stuff_classes=('sky', 'grass'),
    palette=[(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)])
SKY = 65536 * 7 + 256 * 5 + 3  # an id that uses all three channels


class TinySet(NamedTuple):
    root: Path
    ids: Dict[int, np.ndarray]  # image id -> (H, W) segment ids
    rewrite: Callable  # rewrite(function): the function changes the content of the JSON in place
    write_png: Callable  # write_png(image id, (H, W) segment ids) replaces a PNG

    def arguments(self, **kwargs) -> dict:
        """Arguments of CocoPanopticMapDataset."""
        return {
            **dict(
                data_root=str(self.root),
                ann_file='panoptic.json',
                metainfo=METAINFO,
                data_prefix=dict(img='images/', seg='png/')),
            **kwargs
        }


def _write_png(path: Path, ids: np.ndarray) -> None:
    cv2.imwrite(str(path), np.stack([ids // 256**2, ids // 256 % 256, ids % 256], -1).astype(np.uint8))


def _segments(ids: np.ndarray, category_of_id: Dict[int, int], crowd=()) -> list:
    infos = []
    for segment_id, category in category_of_id.items():
        rows, columns = np.nonzero(ids == segment_id)
        box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
        infos.append(
            dict(
                id=segment_id,
                category_id=category,
                area=len(rows),
                bbox=box,
                iscrowd=int(segment_id in crowd)))
    return infos


@pytest.fixture(autouse=True)
def _mmdet_scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture
def tiny_set(tmp_path: Path) -> TinySet:
    """Image 1: things (one with a single pixel), stuff, crowd, void; 2: stuff; 3: crowd and void; 4: void."""
    mixed = np.full((20, 30), 300000, np.int64)  # grass
    mixed[:8] = SKY
    mixed[2:6, 3:9] = 255  # cat
    mixed[2:6, 9:12] = 256  # cat, adjacent to the other one
    mixed[15, 15] = 77  # dog, a single pixel
    mixed[12:18, 20:28] = 1000  # crowd of dogs
    mixed[19] = 0  # unlabeled
    stuff = np.full((16, 24), 12, np.int64)
    crowd = np.zeros((12, 12), np.int64)
    crowd[3:9, 3:9] = 5
    ids = {1: mixed, 2: stuff, 3: crowd, 4: np.zeros((10, 14), np.int64)}
    infos = {
        1: _segments(mixed, {
            300000: 200,
            SKY: 150,
            255: 3,
            256: 3,
            77: 7,
            1000: 7
        }, crowd=(1000, )),
        2: _segments(stuff, {12: 150}),
        3: _segments(crowd, {5: 3}, crowd=(5, )),
        4: [],
    }

    (tmp_path / 'images').mkdir()
    (tmp_path / 'png').mkdir()

    def write_png(number: int, segment_ids: np.ndarray) -> None:
        _write_png(tmp_path / 'png' / f'{number:03d}_panoptic.png', segment_ids)

    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, segment_ids in ids.items():
        height, width = segment_ids.shape
        cv2.imwrite(str(tmp_path / 'images' / f'{number:03d}.png'), rng.integers(0, 256, (height, width, 3)))
        # The name of the PNG differs from that of the image, as in Cityscapes.
        write_png(number, segment_ids)
        images.append(dict(id=number, file_name=f'{number:03d}.png', height=height, width=width))
        annotations.append(
            dict(image_id=number, file_name=f'{number:03d}_panoptic.png', segments_info=infos[number]))
    path = tmp_path / 'panoptic.json'
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=CATEGORIES)))

    def rewrite(edit: Callable) -> None:
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return TinySet(tmp_path, ids, rewrite, write_png)
