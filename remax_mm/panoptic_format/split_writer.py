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
from typing import Any, Callable, Mapping, NamedTuple, Optional, Sequence, Union

import cv2
import numpy as np

from .image_files import BrokenFileError, read_image
from .map_images import map_images
from .segment_ids import decode_segment_ids, encode_segment_ids
from .segments_info import SegmentLabel, describe_segments

UNFINISHED = '.part'
"""Ending of a file that is being written."""


class ConvertedImage(NamedTuple):
    """Panoptic ground truth of an image.

    Attributes:
        image_id: Its id in the JSON.
        file_name: Photo, below the folder of images.
        png_name: PNG to write, below the folder of PNGs.
        ids: (H, W) segment ids in [0, 2^24), 0 is unlabeled.
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
