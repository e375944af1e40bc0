"""All findings in the JSON of a panoptic dataset, and the images whose files can be checked."""
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Sequence

from remax_mm.panoptic_format import AnnotationFile, Finding, check_entries, read_annotations


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


def check_json(ann_file: str, image_dir: str, png_dir: str, photo_name: Callable[[dict], str],
               png_name: Callable[[dict], str]) -> JsonReport:
    """Check the JSON, list the images with valid entries, whose files can be checked, and find unused PNGs.

    Args:
        ann_file, image_dir, png_dir: Paths of the JSON, of the images and of the PNGs.
        photo_name: Returns the path of an image file relative to ``image_dir``, given an entry of ``images``.
        png_name: Returns the path of a PNG relative to ``png_dir``, given an entry of ``images``; used if the
            annotation has no ``file_name``.

    Raises:
        FileNotFoundError: there is no JSON.
        BrokenFileError: the path of the JSON is not a regular file.
    """
    found = read_annotations(ann_file, AnnotationFile)
    findings = [*found.findings, *check_entries(found, ann_file)]
    # Without a valid `isthing`, a category is treated as a thing.
    categories = {
        entry['id']: Category(entry['id'], entry['name'],
                              entry.get('isthing') != 0)
        for entry in found.content['categories']
    }

    # Of several entries with the same id, the first is checked.
    annotations = {entry['image_id']: entry for entry in reversed(found.content['annotations'])}
    tasks: Dict[Any, ImageTask] = {}
    for image in found.content['images']:
        annotation = annotations.get(image['id'])
        if annotation is None or image['id'] in tasks:
            continue
        try:
            photo, png = photo_name(image), annotation.get('file_name') or png_name(image)
        except ValueError as error:  # a dataset may derive names from ids
            findings.append(Finding('value_invalid', ann_file, str(error)))
            continue
        tasks[image['id']] = ImageTask(image, annotation, str(Path(image_dir, photo)),
                                       str(Path(png_dir, png)))
    if not found.skipped['images'] and not found.skipped['annotations']:
        findings += find_unused_pngs(tasks.values(), png_dir)
    return JsonReport(findings, list(categories.values()), list(tasks.values()))


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


def find_unused_pngs(tasks: Iterable[ImageTask], png_dir: str) -> List[Finding]:
    """Find PNGs directly in the folder that no annotation uses."""
    used = {Path(task.png_path).name for task in tasks}
    return [
        Finding('file_unused', str(path), 'no annotation uses it')
        for path in sorted(Path(png_dir).glob('*.png')) if path.name not in used
    ]
