"""Writing data in COCO's panoptic format, for the converters in ``tools/dataset_converters``.

Files are written whole or not at all, and nothing is overwritten silently, so that an interrupted run can be
started again.
"""
import json
import os
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Callable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
from scipy.ndimage import find_objects

from .image_files import BrokenFileError, read_image
from .map_images import map_images
from .transforms.load_panoptic_map import decode_segment_ids, index_segments

UNFINISHED = '.part'
"""Ending of a file that is being written."""


class SegmentLabel(NamedTuple):
    """A segment's id in the PNG, its category id in the JSON, and whether it is a crowd."""
    id: int
    category_id: int
    iscrowd: bool = False


class ConvertedImage(NamedTuple):
    """Panoptic ground truth of an image.

    Attributes:
        image_id: Its id in the JSON.
        file_name: Photo, below the folder of images.
        png_name: PNG to write, below the folder of PNGs.
        ids: (H, W) segment ids in [0, 2^24), 0 is unlabelled.
        labels: Of each id in ``ids`` but 0.
        notes: What a user should know, and of how many pixels it is true.
    """
    image_id: Union[int, str]
    file_name: str
    png_name: str
    ids: np.ndarray
    labels: Sequence[SegmentLabel]
    notes: Optional[Mapping[str, int]] = None


class WrittenSplit(NamedTuple):
    """What :func:`write_split` wrote, or found: numbers of images and segments, share of void, and notes."""
    ann_file: Path
    is_new: bool
    images: int
    things: int
    stuff: int
    crowd: int
    void_share: float
    kept_pngs: int
    seconds: float
    notes: Mapping[str, int]

    def __str__(self) -> str:
        segments = self.things + self.stuff + self.crowd
        lines = [
            f'{"Wrote" if self.is_new else "Found nothing to do for"} {self.ann_file}, {self.seconds:.1f} s',
            f'  {self.images} images; {self.kept_pngs} of their PNGs were there already',
            f'  {segments} segments: {self.things} things, {self.stuff} stuff, {self.crowd} crowd',
            f'  {self.void_share:.2%} of the pixels are void',
        ]
        return '\n'.join([*lines, *(f'  {pixels} pixels: {note}' for note, pixels in self.notes.items())])


class _WrittenImage(NamedTuple):
    image: dict
    annotation: dict
    void_pixels: int
    kept: bool
    notes: Mapping[str, int]


def encode_segment_ids(ids: np.ndarray, path: Union[str, Path]) -> np.ndarray:
    """Segment ids R + 256 G + 256² B as (H, W, 3) uint8 in OpenCV's channel order B, G, R.

    Raises:
        ValueError: an id is not in [0, 2^24); names ``path``, the PNG that the ids are for.
    """
    if ids.size and not 0 <= ids.min() <= ids.max() < 256**3:
        raise ValueError(f'Expected segment ids in [0, 2^24), but got {ids.min()} to {ids.max()} for {path}')
    return np.stack([ids // 256**2, ids // 256 % 256, ids % 256], axis=-1).astype(np.uint8)


def number_keys(keys: np.ndarray) -> Tuple[np.ndarray, List[int]]:
    """Number the different keys of a map from 1 on, in ascending order.

    Args:
        keys: (H, W) non-negative integers, 0 is unlabelled.

    Returns:
        (H, W) int32 ids in [0, S], 0 where the key is 0, and the keys of the ids 1..S.
    """
    # Only one pixel of each run of equal keys is sorted.
    flat = keys.ravel()
    starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    values, index = np.unique(flat[starts], return_inverse=True)
    run_ids = np.cumsum(values > 0, dtype=np.int32)[index]
    ids = np.repeat(run_ids, np.diff(starts, append=len(flat)))
    return ids.reshape(keys.shape), values[values > 0].tolist()


def describe_segments(ids: np.ndarray, labels: Sequence[SegmentLabel]) -> List[dict]:
    """The ``segments_info`` of COCO's format: labels with bounding box (x, y, width, height) and area.

    Args:
        ids: (H, W) segment ids, 0 is unlabelled.
        labels: Of the segments, whose order the result keeps.

    Raises:
        ValueError: the ids of map and labels differ, or an id has two labels.
    """
    index, unknown, unseen, areas = index_segments(ids, [label.id for label in labels])
    if unknown or unseen or len({label.id for label in labels}) < len(labels):
        raise ValueError(f'Expected one label for each segment, but {unknown[:5] or "none"} have no label, '
                         f'{unseen[:5] or "none"} have no pixel, and {len(labels)} labels have '
                         f'{len({label.id for label in labels})} ids')
    return [
        dict(
            id=int(label.id),
            category_id=int(label.category_id),
            iscrowd=int(label.iscrowd),
            bbox=[columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
            area=area) for label, area, (rows, columns) in zip(labels, areas.tolist(), find_objects(index))
    ]


def write_split(ann_file: Path,
                convert: Callable[[Any], ConvertedImage],
                jobs: Sequence[Any],
                categories: Sequence[Mapping],
                processes: int = 1,
                overwrite: bool = False) -> WrittenSplit:
    """Write the JSON ``ann_file`` and its PNGs into the folder beside it that has the same stem.

    What is there already is compared: PNGs that are right are kept, and a run over a finished split ends
    without having written anything.

    Args:
        ann_file: JSON to write.
        convert: Turns a job into ground truth. It and the jobs must be picklable where ``processes`` > 1.
        jobs: One for each image, in the order of the JSON.
        categories: Of the JSON: ``id``, ``name``, ``isthing``, ...
        processes: 1 works in this process.
        overwrite: Whether files with other content are replaced.

    Raises:
        FileExistsError: such a file is there and may not be replaced.
        ValueError: ``ann_file`` does not end in ``.json``.
    """
    if ann_file.suffix != '.json':
        raise ValueError(f'Expected the name of a JSON to write, but got {ann_file}')
    start = time.time()
    png_folder = ann_file.with_suffix('')
    png_folder.mkdir(parents=True, exist_ok=True)
    write = partial(_write_image, convert, png_folder, overwrite)

    written = list(map_images(write, jobs, processes))
    content = dict(
        images=[image.image for image in written],
        annotations=[image.annotation for image in written],
        categories=list(categories))
    is_new = overwrite or not _holds_json(ann_file, content)
    if is_new:
        write_json(ann_file, content)
    return _summarize(ann_file, is_new, written, categories, time.time() - start)


def _write_image(convert: Callable[[Any], ConvertedImage], png_folder: Path, overwrite: bool,
                 job: Any) -> _WrittenImage:
    converted = convert(job)
    path = png_folder / converted.png_name
    kept = path.exists() and _holds_ids(path, converted.ids)
    if path.exists() and not kept and not overwrite:
        raise FileExistsError(
            f'Expected nothing or the PNG that this run would write at {path}, but there is '
            'another one; --overwrite replaces it')
    if not kept:
        _, png = cv2.imencode('.png', encode_segment_ids(converted.ids, path))
        write_whole(path, png.tobytes())

    height, width = converted.ids.shape
    image = dict(id=converted.image_id, file_name=converted.file_name, height=height, width=width)
    annotation = dict(
        image_id=converted.image_id,
        file_name=converted.png_name,
        segments_info=describe_segments(converted.ids, converted.labels))
    void_pixels = int((converted.ids == 0).sum())
    return _WrittenImage(image, annotation, void_pixels, kept, dict(converted.notes or {}))


def _holds_ids(path: Path, ids: np.ndarray) -> bool:
    try:
        return np.array_equal(decode_segment_ids(read_image(str(path))), ids)
    except BrokenFileError:
        return False


def _holds_json(path: Path, content: Mapping) -> bool:
    if not path.exists():
        return False
    try:
        same = json.loads(path.read_text()) == json.loads(json.dumps(content))
    except ValueError:
        same = False
    if not same:
        raise FileExistsError(f'Expected nothing or the annotations that this run would write at {path}, but '
                              'there are others; --overwrite replaces them')
    return True


def _summarize(ann_file: Path, is_new: bool, written: Sequence[_WrittenImage], categories: Sequence[Mapping],
               seconds: float) -> WrittenSplit:
    isthing = {category['id']: category['isthing'] for category in categories}
    segments = [segment for image in written for segment in image.annotation['segments_info']]
    things = sum(isthing[segment['category_id']] and not segment['iscrowd'] for segment in segments)
    crowd = sum(segment['iscrowd'] for segment in segments)
    pixels = sum(image.image['height'] * image.image['width'] for image in written)
    return WrittenSplit(
        ann_file=ann_file,
        is_new=is_new or not all(image.kept for image in written),
        images=len(written),
        things=things,
        stuff=len(segments) - things - crowd,
        crowd=crowd,
        void_share=sum(image.void_pixels for image in written) / max(pixels, 1),
        kept_pngs=sum(image.kept for image in written),
        seconds=seconds,
        notes=sum((Counter(image.notes) for image in written), Counter()))


def write_json(path: Path, content: Mapping) -> None:
    """Write a JSON without blanks."""
    write_whole(path, (json.dumps(content, separators=(',', ':')) + '\n').encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name and rename it, so that it is never there in part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + UNFINISHED)
    unfinished.write_bytes(content)
    os.replace(unfinished, path)
