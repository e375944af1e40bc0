"""The order of classes: from the categories of a COCO panoptic JSON to labels, things first, then stuff."""
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from mmengine import fileio

from .annotation_checks import check_entries
from .annotation_schema import CategoryFile, read_annotations
from .findings import raise_errors
from .json_files import check_unique, list_some


def sort_categories(categories: Sequence[Mapping]) -> List[Mapping]:
    """Sort categories (``id``, ``name``, ``isthing``): things first, by id within things and within stuff."""
    return sorted(categories, key=lambda category: (not category['isthing'], category['id']))


def order_classes(categories: Sequence[Mapping]) -> Dict[str, Any]:
    """Derive the class lists of a dataset from its categories, in the order of :func:`sort_categories`.

    Files with the same categories in different orders get the same classes.

    Args:
        categories: Entries with ``id``, ``name``, ``isthing`` (0 or 1) and optionally ``color`` (RGB).

    Returns:
        Metainfo of a dataset: ``classes``, ``thing_classes``, ``stuff_classes``, and ``palette`` if every
        category has a color.
    """
    ordered = sort_categories(categories)
    metainfo: Dict[str, Any] = dict(
        classes=tuple(category['name'] for category in ordered),
        thing_classes=tuple(category['name'] for category in ordered if category['isthing']),
        stuff_classes=tuple(category['name'] for category in ordered if not category['isthing']))
    if all('color' in category for category in ordered):
        metainfo['palette'] = [tuple(category['color']) for category in ordered]
    return metainfo


def count_classes(ann_file: str, default: Tuple[int, int]) -> Tuple[int, int]:
    """Count the thing and the stuff classes of a panoptic JSON, for the config of a model.

    Args:
        ann_file: The JSON.
        default: Counts if there is no such file, so that a config can be printed and compared without its
            data. A training or a test then stops with the error of the dataset.

    Returns:
        Numbers of thing and of stuff classes.

    Raises:
        ValueError: the categories of the file have an error.
    """
    if not fileio.exists(ann_file):
        return default
    found = read_annotations(ann_file, CategoryFile)
    raise_errors([*found.findings, *check_entries(found, ann_file, all_annotated=False)], ann_file)
    classes = order_classes(found.content['categories'])
    return len(classes['thing_classes']), len(classes['stuff_classes'])


def map_categories(categories: Sequence[Mapping], thing_classes: Sequence[str], stuff_classes: Sequence[str],
                   ann_file: str) -> Dict[int, int]:
    """Map category ids to labels; categories and classes are matched by name.

    Args:
        categories: Entries with ``id``, ``name`` and ``isthing`` (0 or 1), in any order.
        thing_classes: Names of the labels 0, 1, ...
        stuff_classes: Names of the labels after the things.
        ann_file: File of the categories, for error messages.

    Returns:
        Category id -> label in [0, K).

    Raises:
        ValueError: a class is repeated, ``isthing`` contradicts the class lists, or the names of the
            categories differ from those of the classes.
    """
    classes = [*thing_classes, *stuff_classes]
    check_unique('name', 'classes of `metainfo`', classes, ann_file)
    names = {category['name'] for category in categories}
    missing, additional = set(classes) - names, names - set(classes)
    if missing or additional:
        raise ValueError(
            f'Expected the categories of {ann_file} to be the classes of `metainfo`, but missing '
            f'are {list_some(missing)}, and not in `metainfo` are {list_some(additional)}')

    wrong = [c['name'] for c in categories if bool(c['isthing']) != (c['name'] in set(thing_classes))]
    if wrong:
        raise ValueError(f'Expected `isthing` in {ann_file} to agree with `thing_classes` and '
                         f'`stuff_classes` of `metainfo`, but it differs for {list_some(wrong)}')
    label_of_name = {name: label for label, name in enumerate(classes)}
    return {category['id']: label_of_name[category['name']] for category in categories}
