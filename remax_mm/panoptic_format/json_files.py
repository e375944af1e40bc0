"""Reading, checking and writing of the JSON files, and atomic writing of any file."""
import json
import os
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Hashable, Iterable, Iterator, Mapping, Optional, Sequence

from mmengine import fileio

PARTIAL_SUFFIX = '.part'
"""Suffix of a file that is not completely written."""


def read_panoptic_json(path: str,
                       lists: Sequence[str],
                       backend_args: Optional[dict] = None) -> Dict[str, Any]:
    """Read a JSON in the COCO panoptic format.

    Args:
        path: The JSON, on any backend of mmengine's fileio.
        lists: Keys that it must have, such as ``images``.
        backend_args: Arguments of that backend.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not JSON, or a key is missing.
    """
    try:
        content = fileio.load(path, file_format='json', backend_args=backend_args)
    except ValueError as error:
        raise ValueError(f'Expected JSON in {path}, but it cannot be decoded: {error}') from error
    check_lists(content, lists, path)
    return content


def check_lists(content: Any, lists: Sequence[str], path: str) -> None:
    """Raise ValueError if the content of a JSON is not an object with all the keys ``lists``."""
    keys = sorted(content) if isinstance(content, dict) else []
    missing = [key for key in lists if key not in keys]
    if missing:
        raise ValueError(f'Expected {", ".join(f"`{key}`" for key in lists)} of the COCO panoptic format in '
                         f'{path}, but {missing} are missing; its keys are {keys}')


@contextmanager
def require_keys(path: str) -> Iterator[None]:
    """Turn a KeyError inside the ``with`` block into a ValueError that names the JSON."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f'Expected the key {error} in every entry of its list in {path}, '
                         'but it is missing in one') from error


def annotations_by_image(annotations: Sequence[Mapping], ann_file: str) -> Dict[Any, Mapping]:
    """The annotation of each image id.

    Raises:
        ValueError: an annotation has no ``image_id``, or an image has several annotations.
    """
    with require_keys(ann_file):
        image_ids = [annotation['image_id'] for annotation in annotations]
    check_unique('image', '`annotations`', image_ids, ann_file)
    return dict(zip(image_ids, annotations))


def check_unique(what: str, where: str, values: Iterable[Hashable], path: str) -> None:
    """Raise ValueError if a value is repeated.

    Args:
        what: Kind of value, for the error message.
        where: List in the file that the values are from, for the error message.
        values: Any hashable values.
        path: The file, for the error message.
    """
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise ValueError(f'Expected each {what} once in the {where} of {path}, but {list_some(repeated)} '
                         'appear several times')


def list_some(values: Iterable[Hashable]) -> str:
    """Text with at most five of the values, and how many more there are; ``none`` without any."""
    values = sorted(values, key=str)
    more = f' and {len(values) - 5} more' if len(values) > 5 else ''
    return (', '.join(map(repr, values[:5])) or 'none') + more


def write_json(path: Path, content: Mapping) -> None:
    """Write a JSON without spaces between its parts; see :func:`write_atomically`."""
    write_atomically(path, (json.dumps(content, separators=(',', ':')) + '\n').encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it: an interrupted write leaves no broken file.

    Missing folders are created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(path.name + PARTIAL_SUFFIX)
    partial_path.write_bytes(content)
    os.replace(partial_path, path)
