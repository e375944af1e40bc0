"""Checks of the JSON of a panoptic dataset: its lists, categories, images and annotations.

The format is that of https://cocodataset.org/#format-data, section 4: one JSON, and for each image one PNG of
segment ids.
"""
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Tuple

from remax_mm.panoptic_format import check_lists


class Kind(NamedTuple):
    """A kind of defect: whether it breaks training or evaluation, and its description."""
    is_error: bool
    meaning: str


KINDS: Dict[str, Kind] = {
    'key_missing': Kind(True, 'an entry of the JSON without a required key; the entry is skipped'),
    'isthing_missing': Kind(True, 'a category whose `isthing` is missing, or is not 0 or 1'),
    'category_repeated': Kind(True, 'several categories with the same id or the same name'),
    'isthing_differs': Kind(True, 'a thing of the JSON that is stuff in the class list, or the reverse'),
    'classes_differ': Kind(True, 'categories that are not in the class list, or the reverse'),
    'image_id_repeated': Kind(True, 'several images with the same id'),
    'annotation_repeated': Kind(True, 'several annotations of the same image'),
    'annotation_without_image': Kind(False, 'an annotation of an image that is not in the JSON'),
    'image_without_annotation': Kind(True, 'an image without an annotation'),
    'category_unknown': Kind(True, 'a segment with a category that is not in the JSON'),
    'segment_id_repeated': Kind(True, 'several segments of an image with the same id'),
    'segment_id_invalid': Kind(True, 'a segment id that is not in 1 to 256^3 - 1'),
    'image_missing': Kind(True, 'an image file that does not exist'),
    'image_broken': Kind(True, 'an image file that cannot be decoded'),
    'png_missing': Kind(True, 'a panoptic PNG that does not exist'),
    'png_broken': Kind(True, 'a panoptic PNG that cannot be decoded'),
    'size_differs': Kind(True, 'an image, PNG and JSON with different sizes'),
    'segment_unlisted': Kind(True, 'pixels with a segment id that is not in the JSON'),
    'segment_empty': Kind(True, 'a segment of the JSON without a pixel in the PNG'),
    'area_wrong': Kind(True, 'an `area` that is not the number of pixels in the PNG'),
    'bbox_wrong': Kind(False, 'a `bbox` that is not the bounding box of the pixels in the PNG'),
    'stuff_repeated': Kind(False,
                           'several segments of a stuff class in an image; perhaps the class is a thing'),
    'stuff_is_crowd': Kind(False, 'a crowd region of a stuff class; its pixels are void'),
    'all_void': Kind(False, 'an image without any segment except crowd regions'),
    'file_unused': Kind(False, 'a PNG that is not in the JSON'),
}


class Finding(NamedTuple):
    """One defect: its kind (a key of ``KINDS``), the file, and details."""
    kind: str
    file: str
    message: str


class Category(NamedTuple):
    """A category of the JSON."""
    id: int
    name: str
    is_thing: bool


class ImageTask(NamedTuple):
    """An image to check: its entry in the JSON, its annotation, and the paths of its files."""
    image: Dict[str, Any]
    annotation: Dict[str, Any]
    image_path: str
    png_path: str


class JsonReport(NamedTuple):
    """Result of :func:`check_json`: defects, categories, and the images whose files can be checked."""
    findings: List[Finding]
    categories: List[Category]
    tasks: List[ImageTask]


REQUIRED_KEYS = dict(
    categories=('id', 'name'),
    images=('id', 'file_name', 'height', 'width'),
    annotations=('image_id', 'segments_info'))
"""Keys that every entry of a list of the JSON must have."""

REQUIRED_SEGMENT_KEYS = ('id', 'category_id')
"""Keys that every entry of ``segments_info`` must have."""


def check_json(content: Mapping, ann_file: str, image_dir: str, png_dir: str,
               photo_name: Callable[[dict], str], png_name: Callable[[dict], str]) -> JsonReport:
    """Check the JSON, and list the images whose files can be checked.

    Args:
        content: Content of the JSON.
        ann_file, image_dir, png_dir: Paths of the JSON, of the images and of the PNGs.
        photo_name: Returns the path of an image file relative to ``image_dir``, given an entry of ``images``.
        png_name: Returns the path of a PNG relative to ``png_dir``, given an entry of ``images``; used if the
            annotation has no ``file_name``.

    Raises:
        ValueError: one of the lists of panoptic annotations is missing.
    """
    check_lists(content, ('images', 'annotations', 'categories'), ann_file)
    entries, findings = select_complete_entries(content, ann_file)
    categories, category_findings = check_categories(entries['categories'], ann_file)
    findings += category_findings

    images = {image['id']: image for image in entries['images']}
    annotations = {annotation['image_id']: annotation for annotation in entries['annotations']}
    findings += _check_one_to_one(entries, images, annotations, ann_file)
    tasks = [
        ImageTask(image, annotations[image_id], str(Path(image_dir, photo_name(image))),
                  str(Path(png_dir, annotations[image_id].get('file_name') or png_name(image))))
        for image_id, image in images.items() if image_id in annotations
    ]
    return JsonReport(findings, categories, tasks)


def select_complete_entries(content: Mapping, ann_file: str) -> Tuple[Dict[str, List[dict]], List[Finding]]:
    """The entries of each list that have all required keys, and a finding for each of the others."""
    entries: Dict[str, List[dict]] = {}
    findings = []
    for name, keys in REQUIRED_KEYS.items():
        entries[name] = []
        for number, entry in enumerate(content[name]):
            missing = [key for key in keys if key not in entry]
            missing += [
                f'segments_info.{key}' for key in REQUIRED_SEGMENT_KEYS if any(
                    key not in segment for segment in entry.get('segments_info', ()))
            ]
            if missing:
                message = f'entry {number} of `{name}` lacks {", ".join(missing)}'
                findings.append(Finding('key_missing', ann_file, message))
            else:
                entries[name].append(entry)
    return entries, findings


def check_categories(categories: Sequence[dict], ann_file: str) -> Tuple[List[Category], List[Finding]]:
    """Check the categories; those without a valid ``isthing`` are treated as things."""
    findings = [
        Finding('isthing_missing', ann_file,
                f'category {c["id"]} ({c["name"]!r}) has isthing={c.get("isthing", "none")}')
        for c in categories if c.get('isthing') not in (0, 1)
    ]
    for key in ('id', 'name'):
        findings += [
            Finding('category_repeated', ann_file, f'{count} categories have the {key} {value!r}')
            for value, count in _count_repeated(c[key] for c in categories).items()
        ]
    found = {c['id']: Category(c['id'], c['name'], c.get('isthing') != 0) for c in categories}
    return list(found.values()), findings


def check_classes(categories: Sequence[Category], thing_classes: Sequence[str], stuff_classes: Sequence[str],
                  ann_file: str) -> List[Finding]:
    """Compare the categories of a JSON with the class list of a dataset, by name."""
    names = {category.name for category in categories}
    classes = {*thing_classes, *stuff_classes}
    findings = [
        Finding(
            'isthing_differs', ann_file,
            f'{c.name!r} is {"a thing" if c.is_thing else "stuff"} in the JSON, but not in the class list')
        for c in categories if c.name in classes and c.is_thing != (c.name in set(thing_classes))
    ]
    for where, missing in (('the class list', names - classes), ('the JSON', classes - names)):
        findings += [
            Finding('classes_differ', ann_file, f'{where} lacks {name!r}') for name in sorted(missing)
        ]
    return findings


def _check_one_to_one(entries: Mapping[str, Sequence[dict]], images: Mapping, annotations: Mapping,
                      ann_file: str) -> List[Finding]:
    """Check that each image has exactly one annotation, and each annotation an image."""
    findings = []
    for kind, ids in (('image_id_repeated', [image['id'] for image in entries['images']]),
                      ('annotation_repeated', [entry['image_id'] for entry in entries['annotations']])):
        findings += [
            Finding(kind, ann_file, f'image id {value!r} appears {count} times')
            for value, count in _count_repeated(ids).items()
        ]
    findings += [
        Finding('annotation_without_image', ann_file, f'annotation of image id {image_id!r}')
        for image_id in annotations if image_id not in images
    ]
    findings += [
        Finding('image_without_annotation', str(image['file_name']), f'image id {image_id!r}')
        for image_id, image in images.items() if image_id not in annotations
    ]
    return findings


def _count_repeated(values: Iterable) -> Dict[Any, int]:
    return {value: count for value, count in Counter(values).items() if count > 1}


def find_unused_pngs(tasks: Iterable[ImageTask], png_dir: str) -> List[Finding]:
    """Find PNGs directly in the folder that no annotation uses."""
    used = {Path(task.png_path).name for task in tasks}
    return [
        Finding('file_unused', str(path), 'no annotation uses it')
        for path in sorted(Path(png_dir).glob('*.png')) if path.name not in used
    ]
