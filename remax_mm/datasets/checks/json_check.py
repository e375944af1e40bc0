"""Look the JSON of a panoptic dataset over: what training or evaluation would trip over, and what is odd.

The format is that of https://cocodataset.org/#format-data, section 4: one JSON, one PNG of segment ids for
each image.
"""
from collections import Counter
from operator import itemgetter
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Tuple


class Kind(NamedTuple):
    """A kind of defect: whether training or evaluation goes wrong with it, and what it is."""
    is_error: bool
    meaning: str


KINDS: Dict[str, Kind] = {
    'key_missing': Kind(True, 'an entry of the JSON that lacks what it must have; it is not looked at'),
    'isthing_missing': Kind(True, 'a category without `isthing`, or with another value than 0 and 1'),
    'category_twice': Kind(True, 'two categories of one id or of one name'),
    'isthing_contradicts': Kind(True, 'a category that is a thing here and stuff in the class list'),
    'classes_differ': Kind(True, 'categories that the class list lacks, or the reverse'),
    'image_id_twice': Kind(True, 'two images of one id'),
    'annotation_twice': Kind(True, 'two annotations of one image'),
    'annotation_without_image': Kind(False, 'an annotation of an image that the JSON lacks'),
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
    """A class of the dataset, as the JSON has it."""
    id: int
    name: str
    is_thing: bool


class ImageTask(NamedTuple):
    """An image and its annotation in the JSON, and where their files should be."""
    image: dict
    annotation: dict
    image_path: str
    png_path: str


class JsonReport(NamedTuple):
    """What the JSON alone tells."""
    findings: List[Finding]
    categories: List[Category]
    tasks: List[ImageTask]


KEYS = dict(
    categories=('id', 'name'),
    images=('id', 'file_name', 'height', 'width'),
    annotations=('image_id', 'segments_info'))
SEGMENT_KEYS = ('id', 'category_id')
"""What each entry of the JSON must have; `isthing` and files are looked at one by one."""


def complete_entries(content: Mapping, ann_file: str) -> Tuple[Dict[str, List[dict]], List[Finding]]:
    """The entries of each list in :data:`KEYS` that have all of its keys, and findings about the others."""
    entries: Dict[str, List[dict]] = {}
    findings = []
    for part, keys in KEYS.items():
        entries[part] = []
        for number, entry in enumerate(content[part]):
            lacking = [key for key in keys if key not in entry]
            lacking += [
                f'segments_info.{key}' for key in SEGMENT_KEYS if any(
                    key not in segment for segment in entry.get('segments_info', ()))
            ]
            if lacking:
                message = f'entry {number} of `{part}` lacks {", ".join(lacking)}'
                findings.append(Finding('key_missing', ann_file, message))
            else:
                entries[part].append(entry)
    return entries, findings


def png_of_stem(image: dict) -> str:
    """The PNG that is named like its image."""
    return str(Path(image['file_name']).with_suffix('.png'))


def check_categories(categories: Sequence[dict], ann_file: str) -> Tuple[List[Category], List[Finding]]:
    """The classes of a dataset, those without a valid ``isthing`` taken for things."""
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
        ann_file, image_dir, png_dir: where the dataset lies.
        photo_name: of an entry of ``images`` the path of its file in ``image_dir``.
        png_name: of an entry of ``images`` that of its PNG in ``png_dir``, where its annotation names none.

    Raises:
        ValueError: the JSON is not one of panoptic annotations at all.
    """
    missing = [key for key in ('images', 'annotations', 'categories') if key not in content]
    if missing:
        raise ValueError(f'Expected `images`, `annotations` and `categories` in {ann_file}, but {missing} '
                         f'are missing; its keys are {sorted(content)}')
    entries, findings = complete_entries(content, ann_file)
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


def _check_one_to_one(entries: Mapping[str, Sequence[dict]], images: Mapping, annotations: Mapping,
                      ann_file: str) -> List[Finding]:
    """Whether each image, by its id, has one annotation and each annotation an image."""
    findings = []
    for kind, ids in (('image_id_twice', [i['id'] for i in entries['images']]),
                      ('annotation_twice', [a['image_id'] for a in entries['annotations']])):
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
    return findings


def find_unused_pngs(tasks: Iterable[ImageTask], png_dir: str) -> List[Finding]:
    """PNGs directly in the folder that no annotation names."""
    named = {Path(task.png_path).name for task in tasks}
    return [
        Finding('file_unused', str(path), 'no annotation names it')
        for path in sorted(Path(png_dir).glob('*.png')) if path.name not in named
    ]
