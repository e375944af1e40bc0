"""Look a panoptic data set over: what training or evaluation would trip over, what is odd, what it holds.

The format is that of https://cocodataset.org/#format-data, section 4: one JSON, one PNG of segment ids for
each image.
"""
import io
from collections import Counter
from operator import itemgetter
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy.ndimage import find_objects

from remax_mm.datasets.transforms.load_panoptic_map import index_segments
from remax_mm.evaluation.panoptic_png import VOID_ID, read_segment_ids

EXIF_ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
MAX_ID = 256**3 - 1


class Kind(NamedTuple):
    """A kind of defect: whether training or evaluation goes wrong with it, and what it is."""
    is_error: bool
    meaning: str


KINDS: Dict[str, Kind] = {
    'isthing_missing': Kind(True, 'a category without `isthing`, or with another value than 0 and 1'),
    'category_twice': Kind(True, 'two categories of one id or of one name'),
    'isthing_contradicts': Kind(True, 'a category that is a thing here and stuff in the class list'),
    'classes_differ': Kind(True, 'categories that the class list lacks, or the reverse'),
    'image_id_twice': Kind(True, 'two images of one id'),
    'annotation_twice': Kind(True, 'two annotations of one image'),
    'annotation_without_image': Kind(True, 'an annotation of an image that the JSON lacks'),
    'image_without_annotation': Kind(True, 'an image that no annotation belongs to'),
    'unknown_category': Kind(True, 'a segment of a category that the JSON lacks'),
    'segment_id_twice': Kind(True, 'segments that overlap: two of one id claim the same pixels'),
    'segment_id_invalid': Kind(True, 'a segment id outside of 1 to 256^3 - 1'),
    'image_missing': Kind(True, 'an image file that is not there'),
    'image_broken': Kind(True, 'an image file that cannot be decoded'),
    'png_missing': Kind(True, 'a panoptic PNG that is not there'),
    'png_broken': Kind(True, 'a panoptic PNG that cannot be decoded'),
    'size_differs': Kind(True, 'image, PNG and JSON that disagree about the size'),
    'id_only_in_png': Kind(True, 'pixels of a segment that the JSON lacks'),
    'segment_empty': Kind(True, 'a segment of the JSON without a pixel in the PNG'),
    'area_wrong': Kind(True, 'an `area` that is not the number of pixels in the PNG'),
    'bbox_wrong': Kind(False, 'a `bbox` that is not that of the pixels in the PNG'),
    'stuff_in_parts': Kind(False, 'several segments of one stuff class in an image: is it a thing?'),
    'stuff_is_crowd': Kind(False, 'a crowd region of a stuff class; its pixels count as void'),
    'all_void': Kind(False, 'an image without a segment that counts'),
    'file_unused': Kind(False, 'a PNG that the JSON does not name'),
}


class Finding(NamedTuple):
    """One defect: its kind, a key of ``KINDS``, the file, and what was found there."""
    kind: str
    file: str
    message: str


class Category(NamedTuple):
    """A class of the data set, as the JSON has it."""
    id: int
    name: str
    is_thing: bool


class ImageTask(NamedTuple):
    """An image and its annotation in the JSON, and where their files should be."""
    image: dict
    annotation: dict
    image_path: str
    png_path: str


class ImageReport(NamedTuple):
    """What one image holds: pixels and numbers of segments by category id, without crowd."""
    findings: List[Finding]
    pixels: int = 0
    void: int = 0
    crowd: int = 0
    class_pixels: Mapping[int, int] = {}
    class_segments: Mapping[int, int] = {}


class JsonReport(NamedTuple):
    """What the JSON alone tells."""
    findings: List[Finding]
    categories: List[Category]
    tasks: List[ImageTask]


# ---- the JSON


def png_of_stem(image: dict) -> str:
    """The PNG that is named like its image."""
    return str(Path(image['file_name']).with_suffix('.png'))


def check_categories(categories: Sequence[dict], ann_file: str) -> Tuple[List[Category], List[Finding]]:
    """The classes of a data set, those without a valid ``isthing`` taken for things."""
    findings = [
        Finding('isthing_missing', ann_file,
                f'category {c["id"]} ({c["name"]!r}) has isthing={c.get("isthing", "none")}')
        for c in categories if c.get('isthing') not in (0, 1)
    ]
    for key in ('id', 'name'):
        findings += [
            Finding('category_twice', ann_file, f'{count} categories have the {key} {value!r}')
            for value, count in Counter(c[key] for c in categories).items() if count > 1
        ]
    found = {c['id']: Category(c['id'], c['name'], c.get('isthing') != 0) for c in categories}
    return list(found.values()), findings


def check_classes(categories: Sequence[Category], thing_classes: Sequence[str], stuff_classes: Sequence[str],
                  ann_file: str) -> List[Finding]:
    """Compare the categories of a JSON with the class list that a model was made for, by name."""
    names = {category.name for category in categories}
    classes = {*thing_classes, *stuff_classes}
    findings = [
        Finding(
            'isthing_contradicts', ann_file,
            f'{c.name!r} is a {"thing" if c.is_thing else "stuff class"} here, but not in the class list')
        for c in categories if c.name in classes and c.is_thing != (c.name in set(thing_classes))
    ]
    for what, missing in (('the class list lacks', names - classes), ('the JSON lacks', classes - names)):
        findings += [Finding('classes_differ', ann_file, f'{what} {name!r}') for name in sorted(missing)]
    return findings


def check_json(content: Mapping,
               ann_file: str,
               image_dir: str,
               png_dir: str,
               photo_name: Callable[[dict], str] = itemgetter('file_name'),
               png_name: Callable[[dict], str] = png_of_stem) -> JsonReport:
    """Look through the JSON, and list the images whose files are to be looked at.

    Args:
        content: of the JSON.
        ann_file, image_dir, png_dir: where the data set lies.
        photo_name: of an entry of ``images`` the path of its file in ``image_dir``.
        png_name: of an entry of ``images`` that of its PNG in ``png_dir``, where its annotation names none.

    Raises:
        ValueError: the JSON is not one of panoptic annotations at all.
    """
    missing = [key for key in ('images', 'annotations', 'categories') if key not in content]
    if missing:
        raise ValueError(f'Expected `images`, `annotations` and `categories` in {ann_file}, but {missing} '
                         f'are missing; its keys are {sorted(content)}')
    categories, findings = check_categories(content['categories'], ann_file)

    # Images and annotations, one to one
    images = {image['id']: image for image in content['images']}
    annotations = {annotation['image_id']: annotation for annotation in content['annotations']}
    for kind, ids in (('image_id_twice', [i['id'] for i in content['images']]),
                      ('annotation_twice', [a['image_id'] for a in content['annotations']])):
        findings += [
            Finding(kind, ann_file, f'image id {value!r} stands there {count} times')
            for value, count in Counter(ids).items() if count > 1
        ]
    findings += [
        Finding('annotation_without_image', ann_file, f'annotation of image id {image_id!r}')
        for image_id in annotations if image_id not in images
    ]
    findings += [
        Finding('image_without_annotation', str(image['file_name']), f'image id {image_id!r}')
        for image_id, image in images.items() if image_id not in annotations
    ]
    tasks = [
        ImageTask(image, annotations[image_id], str(Path(image_dir, photo_name(image))),
                  str(Path(png_dir, annotations[image_id].get('file_name') or png_name(image))))
        for image_id, image in images.items() if image_id in annotations
    ]
    return JsonReport(findings, categories, tasks)


def find_unused_pngs(tasks: Iterable[ImageTask], png_dir: str) -> List[Finding]:
    """PNGs directly in the folder that no annotation names."""
    named = {Path(task.png_path).name for task in tasks}
    return [
        Finding('file_unused', str(path), 'no annotation names it')
        for path in sorted(Path(png_dir).glob('*.png')) if path.name not in named
    ]


# ---- one image


def check_image(task: ImageTask, categories: Mapping[int, Category]) -> ImageReport:
    """Look at one image: its files, its segments in the JSON, its pixels.

    Args:
        task: the image.
        categories: by their ids.
    """
    findings = check_segments(task, categories)
    size = (task.image['height'], task.image['width'])

    # The image: only its header, and whether it is whole
    found_size, problem = _read_image_size(task.image_path)
    if problem is not None:
        findings.append(problem)
    elif found_size != size:
        findings.append(
            Finding('size_differs', task.image_path,
                    f'the image is {found_size}, the JSON says {size} (height, width)'))

    # The PNG
    try:
        ids = read_segment_ids(task.png_path)
    except FileNotFoundError:
        return ImageReport([*findings, Finding('png_missing', task.png_path, 'no such file')])
    except ValueError as error:
        return ImageReport([*findings, Finding('png_broken', task.png_path, str(error))])
    if ids.shape != size:
        findings.append(
            Finding('size_differs', task.png_path,
                    f'the PNG is {ids.shape}, the JSON says {size} (height, width)'))
    return _check_pixels(ids, task, categories, findings)


def check_segments(task: ImageTask, categories: Mapping[int, Category]) -> List[Finding]:
    """Defects of an image's ``segments_info``, seen without its PNG."""
    segments = task.annotation['segments_info']
    findings = []
    for segment_id, count in Counter(segment['id'] for segment in segments).items():
        if count > 1:
            findings.append(
                Finding('segment_id_twice', task.png_path, f'{count} segments have the id {segment_id}'))
        if not 1 <= segment_id <= MAX_ID:
            findings.append(Finding('segment_id_invalid', task.png_path, f'segment id {segment_id}'))

    known = [segment for segment in segments if segment['category_id'] in categories]
    findings += [
        Finding('unknown_category', task.png_path,
                f'segment {segment["id"]} is of category {segment["category_id"]}') for segment in segments
        if segment['category_id'] not in categories
    ]
    stuff = [segment for segment in known if not categories[segment['category_id']].is_thing]
    for category_id, count in Counter(s['category_id'] for s in stuff if not s.get('iscrowd')).items():
        if count > 1:
            findings.append(
                Finding('stuff_in_parts', task.png_path,
                        f'{count} segments of the stuff class {categories[category_id].name!r}'))
    findings += [
        Finding('stuff_is_crowd', task.png_path, f'segment {segment["id"]}') for segment in stuff
        if segment.get('iscrowd')
    ]
    if all(segment.get('iscrowd') for segment in segments):
        findings.append(Finding('all_void', task.png_path, f'{len(segments)} segments, all of them crowd'))
    return findings


def _read_image_size(path: str) -> Tuple[Optional[Tuple[int, int]], Optional[Finding]]:
    """(height, width) as image readers turn it, or what is wrong with the file."""
    try:
        with Image.open(io.BytesIO(Path(path).read_bytes())) as image:
            image.load()
            width, height = image.size
            turned = image.getexif().get(EXIF_ORIENTATION) in TURNED
    except FileNotFoundError:
        return None, Finding('image_missing', path, 'no such file')
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        return None, Finding('image_broken', path, str(error))
    return (width, height) if turned else (height, width), None


def _check_pixels(ids: np.ndarray, task: ImageTask, categories: Mapping[int, Category],
                  findings: List[Finding]) -> ImageReport:
    segments = list({segment['id']: segment for segment in task.annotation['segments_info']}.values())
    index = index_segments(ids, [segment['id'] for segment in segments])
    areas = np.bincount(index.index.ravel(), minlength=len(segments) + 1)
    unknown = dict(zip(*np.unique(ids[np.isin(ids, index.unknown_ids)], return_counts=True)))
    findings += [
        Finding('id_only_in_png', task.png_path, f'{pixels} pixels of id {segment_id}')
        for segment_id, pixels in unknown.items()
    ]

    class_pixels, class_segments = Counter(), Counter()
    crowd = 0
    for segment, area, box in zip(segments, areas[1:].tolist(), _boxes(index.index, len(segments))):
        findings += _compare_segment(segment, area, box, task.png_path)
        if segment.get('iscrowd'):
            crowd += area
        elif segment['category_id'] in categories:
            class_pixels[segment['category_id']] += area
            class_segments[segment['category_id']] += 1
    return ImageReport(findings, ids.size, int((ids == VOID_ID).sum()), crowd, dict(class_pixels),
                       dict(class_segments))


def _boxes(index: np.ndarray, num_segments: int) -> List[Optional[List[int]]]:
    slices = find_objects(index.astype(np.int32), num_segments)
    return [
        None if found is None else
        [found[1].start, found[0].start, found[1].stop - found[1].start, found[0].stop - found[0].start]
        for found in slices
    ]


def _compare_segment(segment: dict, area: int, box: Optional[List[int]], path: str) -> List[Finding]:
    """``area`` and ``bbox`` of a segment in the JSON against the pixels; box is None without any."""
    if box is None:
        return [Finding('segment_empty', path, f'segment {segment["id"]} has no pixel')]
    findings = []
    if 'area' in segment and segment['area'] != area:
        findings.append(
            Finding('area_wrong', path,
                    f'segment {segment["id"]} has {area} pixels, the JSON says {segment["area"]}'))
    if 'bbox' in segment and list(segment['bbox']) != box:
        findings.append(
            Finding(
                'bbox_wrong', path,
                f'segment {segment["id"]} fills {box} (x, y, width, height), the JSON says '
                f'{segment["bbox"]}'))
    return findings
