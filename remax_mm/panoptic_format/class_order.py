"""From the categories of a COCO panoptic JSON to labels: things first, then stuff."""
from collections import Counter
from typing import Dict, Hashable, Iterable, Sequence


def order_classes(categories: Sequence[dict], ann_file: str) -> dict:
    """Put the categories of a COCO panoptic JSON into an order: things first, by id inside each group.

    Files that list the same categories in another order get the same classes.

    Args:
        categories: Entries with ``id``, ``name``, ``isthing`` (0 or 1) and, if there is one, ``color`` (RGB).
        ann_file: File that the categories come from, for the messages.

    Returns:
        Metainfo of a dataset: ``classes``, ``thing_classes``, ``stuff_classes``, and ``palette`` where every
        category has a color.

    Raises:
        ValueError: a category has no ``isthing``.
    """
    _check_isthing(categories, ann_file)
    ordered = sorted(categories, key=lambda category: (not category['isthing'], category['id']))
    metainfo = dict(
        classes=tuple(category['name'] for category in ordered),
        thing_classes=tuple(category['name'] for category in ordered if category['isthing']),
        stuff_classes=tuple(category['name'] for category in ordered if not category['isthing']))
    if all('color' in category for category in ordered):
        metainfo['palette'] = [tuple(category['color']) for category in ordered]
    return metainfo


def map_categories(categories: Sequence[dict], thing_classes: Sequence[str], stuff_classes: Sequence[str],
                   ann_file: str) -> Dict[int, int]:
    """Map the category ids of a COCO panoptic JSON to labels by name: things first, then stuff.

    Args:
        categories: Entries with ``id``, ``name`` and ``isthing`` (0 or 1), in any order.
        thing_classes: Names of the labels 0, 1, ...
        stuff_classes: Names of the labels after those of the things.
        ann_file: File that the categories come from, for the messages.

    Returns:
        Category id -> label in [0, K).

    Raises:
        ValueError: a category has no ``isthing``, or one that contradicts the class lists, or a name or id
            stands there twice, or the names of the categories and of the classes differ.
    """
    _check_isthing(categories, ann_file)
    classes = [*thing_classes, *stuff_classes]
    names = [category['name'] for category in categories]
    check_unique('id', 'categories', (category['id'] for category in categories), ann_file)
    check_unique('name', 'categories', names, ann_file)
    check_unique('name', 'classes of `metainfo`', classes, ann_file)
    missing, further = set(classes) - set(names), set(names) - set(classes)
    if missing or further:
        raise ValueError(f'Expected the categories of {ann_file} to be the classes of `metainfo`, but the '
                         f'categories lack {list_some(missing)} and have besides {list_some(further)}')

    wrong = [c['name'] for c in categories if bool(c['isthing']) != (c['name'] in set(thing_classes))]
    if wrong:
        raise ValueError(f'Expected `isthing` in {ann_file} to agree with `thing_classes` and '
                         f'`stuff_classes` of `metainfo`, but it contradicts them for {list_some(wrong)}')
    label_of_name = {name: label for label, name in enumerate(classes)}
    return {category['id']: label_of_name[category['name']] for category in categories}


def list_some(names: Iterable[Hashable]) -> str:
    """At most five of the names and how many more there are, for a message."""
    names = sorted(names, key=str)
    more = f' and {len(names) - 5} more' if len(names) > 5 else ''
    return (', '.join(map(repr, names[:5])) or 'none') + more


def check_unique(what: str, where: str, given: Iterable[Hashable], ann_file: str) -> None:
    """Raise ValueError where something is given twice."""
    double = [value for value, count in Counter(given).items() if count > 1]
    if double:
        raise ValueError(f'Expected each {what} once in the {where} for {ann_file}, but {list_some(double)} '
                         'stand there more often')


def _check_isthing(categories: Sequence[dict], ann_file: str) -> None:
    without = [category['name'] for category in categories if 'isthing' not in category]
    if without:
        raise ValueError(
            f'Expected `isthing` in every category of {ann_file}, but {list_some(without)} lack it')
