"""Writing of a split in the COCO panoptic format: a JSON, and a folder of PNGs beside it.

Files are written atomically, and an existing file is not overwritten without permission. An interrupted run
can therefore be started again.
"""
import json
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Union

import cv2
import numpy as np

from .annotation_checks import check_entries
from .annotation_schema import AnnotationFile, CategoryFile, parse_annotations
from .file_content import BrokenFileError
from .findings import raise_errors
from .image_files import read_image
from .json_files import encode_json, write_atomically
from .map_images import map_images
from .segment_ids import VOID_ID, decode_segment_ids, encode_segment_ids
from .segments_info import SegmentLabel, describe_segments


class ConvertedImage(NamedTuple):
    """Panoptic ground truth of an image.

    Attributes:
        image_id: Id of the image in the JSON.
        file_name: Path of the photo, relative to the folder of photos.
        png_name: Path of the PNG to write, relative to the folder of PNGs.
        ids: (H, W) segment ids in [0, 2^24), 0 is unlabeled.
        labels: One for each id in ``ids`` except 0.
        notes: Numbers of pixels to report, by description.
    """
    image_id: Union[int, str]
    file_name: str
    png_name: str
    ids: np.ndarray
    labels: Sequence[SegmentLabel]
    notes: Optional[Mapping[str, int]] = None


class WrittenSplit(NamedTuple):
    """Summary of a split that :func:`write_split` wrote or found complete.

    Attributes:
        ann_file: The JSON.
        is_new: Whether a file was written.
        images: Number of images.
        things, stuff, crowd: Numbers of segments.
        void_ratio: Unlabeled pixels over all pixels, in [0, 1].
        kept_pngs: Number of PNGs that existed already.
        seconds: Duration.
        notes: Numbers of pixels by description, summed over the images.
    """
    ann_file: Path
    is_new: bool
    images: int
    things: int
    stuff: int
    crowd: int
    void_ratio: float
    kept_pngs: int
    seconds: float
    notes: Mapping[str, int]

    def __str__(self) -> str:
        segments = self.things + self.stuff + self.crowd
        lines = [
            f'{"Wrote" if self.is_new else "Complete, nothing to do:"} {self.ann_file}, {self.seconds:.1f} s',
            f'  {self.images} images; {self.kept_pngs} of their PNGs existed already',
            f'  {segments} segments: {self.things} things, {self.stuff} stuff, {self.crowd} crowd',
            f'  {self.void_ratio:.2%} of the pixels are void',
        ]
        return '\n'.join([*lines, *(f'  {pixels} pixels: {note}' for note, pixels in self.notes.items())])


class _WrittenImage(NamedTuple):
    """Entries of an image in the JSON, its void pixels, whether its PNG existed, and its notes."""
    image: Dict[str, Any]
    annotation: Dict[str, Any]
    void_pixels: int
    is_kept: bool
    notes: Mapping[str, int]


def write_split(ann_file: Path,
                convert: Callable[[Any], ConvertedImage],
                jobs: Sequence[Any],
                categories: Sequence[Mapping],
                processes: int = 1,
                overwrite: bool = False) -> WrittenSplit:
    """Write the JSON ``ann_file``, and the PNGs into the folder with the same name without suffix.

    Existing files with the right content are kept; a run on a complete split writes nothing.

    Args:
        ann_file: JSON to write.
        convert: Turns a job into ground truth. With several processes, it and the jobs must be picklable.
        jobs: One for each image, in the order of the JSON.
        categories: Of the JSON: ``id``, ``name``, ``isthing``, ...
        processes: Number of processes; 1 runs in this process.
        overwrite: Whether to replace existing files with other content.

    Raises:
        FileExistsError: a file with other content exists, and ``overwrite`` is False.
        ValueError: ``ann_file`` does not end in ``.json``, or the categories or the converted images violate
            the schema of the JSON.
    """
    if ann_file.suffix != '.json':
        raise ValueError(f'Expected a path that ends in .json to write the annotations, but got {ann_file}')
    start = time.time()
    _check_content(dict(categories=list(categories)), CategoryFile, ann_file)
    png_folder = ann_file.with_suffix('')
    png_folder.mkdir(parents=True, exist_ok=True)
    write = partial(_write_image, convert, png_folder, overwrite)

    written = list(map_images(write, jobs, processes))
    content = dict(
        images=[image.image for image in written],
        annotations=[image.annotation for image in written],
        categories=list(categories))
    _check_content(content, AnnotationFile, ann_file)
    is_new = overwrite or not _has_content(ann_file, content)
    if is_new:
        write_atomically(ann_file, encode_json(content))
    return _summarize(ann_file, is_new, written, categories, time.time() - start)


def _check_content(content: Mapping, schema: type, ann_file: Path) -> None:
    """Raise ValueError if the content for a JSON has an error."""
    found = parse_annotations(encode_json(content), schema, str(ann_file))
    entries = check_entries(found, str(ann_file), all_annotated=schema is AnnotationFile)
    raise_errors([*found.findings, *entries], str(ann_file))


def _write_image(convert: Callable[[Any], ConvertedImage], png_folder: Path, overwrite: bool,
                 job: Any) -> _WrittenImage:
    converted = convert(job)
    path = png_folder / converted.png_name
    is_kept = path.exists() and _has_ids(path, converted.ids)
    if path.exists() and not is_kept and not overwrite:
        raise FileExistsError(
            f'Expected no file, or the PNG of this run, at {path}, but there is another file; '
            '--overwrite replaces it')
    if not is_kept:
        _, png = cv2.imencode('.png', encode_segment_ids(converted.ids, path))
        write_atomically(path, png.tobytes())

    height, width = converted.ids.shape
    image = dict(id=converted.image_id, file_name=converted.file_name, height=height, width=width)
    annotation = dict(
        image_id=converted.image_id,
        file_name=converted.png_name,
        segments_info=describe_segments(converted.ids, converted.labels))
    void_pixels = int((converted.ids == VOID_ID).sum())
    return _WrittenImage(image, annotation, void_pixels, is_kept, converted.notes or {})


def _has_ids(path: Path, ids: np.ndarray) -> bool:
    try:
        return np.array_equal(decode_segment_ids(read_image(str(path))), ids)
    except BrokenFileError:
        return False


def _has_content(path: Path, content: Mapping) -> bool:
    """Whether a JSON exists; one with other content is an error."""
    if not path.exists():
        return False
    try:
        is_same = json.loads(path.read_text()) == json.loads(json.dumps(content))
    except ValueError:
        is_same = False
    if not is_same:
        raise FileExistsError(f'Expected no file, or the annotations of this run, at {path}, but there is '
                              'another file; --overwrite replaces it')
    return True


def _summarize(ann_file: Path, is_new: bool, written: Sequence[_WrittenImage], categories: Sequence[Mapping],
               seconds: float) -> WrittenSplit:
    isthing = {category['id']: category['isthing'] for category in categories}
    segments: List[Dict[str, Any]] = [
        segment for image in written for segment in image.annotation['segments_info']
    ]
    things = sum(isthing[segment['category_id']] and not segment['iscrowd'] for segment in segments)
    crowd = sum(segment['iscrowd'] for segment in segments)
    pixels = sum(image.image['height'] * image.image['width'] for image in written)
    return WrittenSplit(
        ann_file=ann_file,
        is_new=is_new or not all(image.is_kept for image in written),
        images=len(written),
        things=things,
        stuff=len(segments) - things - crowd,
        crowd=crowd,
        void_ratio=sum(image.void_pixels for image in written) / max(pixels, 1),
        kept_pngs=sum(image.is_kept for image in written),
        seconds=seconds,
        notes=sum((Counter(image.notes) for image in written), Counter()))
