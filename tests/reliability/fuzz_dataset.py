"""A small correct panoptic dataset with predictions, and what its wrong and unusual variants are made of."""
import json
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, NamedTuple, Tuple

import cv2
import numpy as np

STEPS = CHECKER, TRAINING, EVALUATION = ('checker', 'training', 'evaluation')
DATASET = (CHECKER, TRAINING)  # the steps that read the photos
ONLY_EVALUATION = (EVALUATION, )


class Variant(NamedTuple):
    """A change of the dataset.

    Attributes:
        name: Path-like, such as ``json/images.height/null``.
        apply: Changes the files in a folder.
        refused_by: The steps that must refuse the changed dataset.
    """
    name: str
    apply: Callable[[Path], Any]
    refused_by: Tuple[str, ...]


CATEGORIES = [
    dict(id=3, name='cat', isthing=1, color=[200, 0, 0]),
    dict(id=7, name='dog', isthing=1, color=[0, 200, 0]),
    dict(id=90, name='grass', isthing=0, color=[0, 0, 200]),
    dict(id=95, name='sky', isthing=0, color=[9, 9, 9]),
]
SIZES = ((48, 64), (40, 72), (56, 40))
CROWD = 4  # index in segments_info


def write_dataset(folder: Path) -> None:
    """Write ``gt.json``, ``gt/``, ``pred.json``, ``pred/`` and ``images/`` with three images."""
    rng = np.random.default_rng(0)
    for name in ('images', 'gt', 'pred'):
        (folder / name).mkdir(parents=True)
    images, annotations, predictions = [], [], []
    for number, (height, width) in enumerate(SIZES, 1):
        name = f'{number:06d}'
        noise = cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (width, height))
        noise = np.clip(noise + rng.normal(0, 9, noise.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / 'images' / f'{name}.jpg'), noise, [cv2.IMWRITE_JPEG_QUALITY, 95])
        images.append(dict(id=number, file_name=f'{name}.jpg', height=height, width=width))

        category_of = {300000 + number: 90, 66000: 95, 255: 3, 256 + number: 3, 1000: 7}
        ids = np.full((height, width), 300000 + number)
        ids[:14] = 66000
        ids[5:20, 4:15] = 255
        ids[5:20, 15:30] = 256 + number
        ids[24:32, 20:38] = 1000
        ids[-3:] = 0
        write_png(folder / 'gt' / f'{name}.png', ids)
        segments = [_describe(ids, i, c, iscrowd=int(i == 1000)) for i, c in category_of.items()]
        annotations.append(dict(image_id=number, file_name=f'{name}.png', segments_info=segments))

        guess = np.where(ids == 1000, 255, ids)
        guess[:, :3] = 255
        write_png(folder / 'pred' / f'{name}.png', guess)
        segments = [_describe(guess, i, category_of[i]) for i in (255, 256 + number, 66000, 300000 + number)]
        predictions.append(dict(image_id=number, file_name=f'{name}.png', segments_info=segments))
    write_json(folder / 'gt.json', dict(images=images, annotations=annotations, categories=CATEGORIES))
    write_json(folder / 'pred.json', dict(annotations=predictions))


def _describe(ids: np.ndarray, segment_id: int, category_id: int, **values: int) -> dict:
    rows, columns = np.nonzero(ids == segment_id)
    box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
    return dict(id=segment_id, category_id=category_id, area=len(rows), bbox=box, **values)


def write_png(path: Path, ids: np.ndarray) -> None:
    cv2.imwrite(str(path), np.stack([ids // 256**2, ids // 256 % 256, ids % 256], -1).astype(np.uint8))


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


@lru_cache(maxsize=None)
def _write_original() -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory()
    write_dataset(Path(folder.name))
    return folder


def original_folder() -> Path:
    """The correct dataset; it is written once, and removed at the end of the process."""
    return Path(_write_original().name)


def change_bytes(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes()))


def cut(fraction: float) -> Callable[[bytes], bytes]:
    return lambda whole: whole[:int(len(whole) * fraction)]


def overwrite(fraction: float, new: bytes) -> Callable[[bytes], bytes]:

    def change(whole: bytes) -> bytes:
        start = int(len(whole) * fraction)
        return (whole[:start] + new + whole[start + len(new):])[:len(whole)]

    return change
