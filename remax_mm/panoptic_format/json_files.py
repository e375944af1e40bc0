"""Writing of JSON and other files, completely or not at all, and helpers of checks."""
import json
import os
from collections import Counter
from pathlib import Path
from typing import Hashable, Iterable, Mapping

PARTIAL_SUFFIX = '.part'
"""Suffix of a file that is not completely written."""


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


def encode_json(content: Mapping) -> bytes:
    """Text of a JSON without spaces between its parts."""
    return (json.dumps(content, separators=(',', ':')) + '\n').encode()


def write_json(path: Path, content: Mapping) -> None:
    """Write a JSON; see :func:`encode_json` and :func:`write_atomically`."""
    write_atomically(path, encode_json(content))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it: an interrupted write leaves no broken file.

    Missing folders are created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(path.name + PARTIAL_SUFFIX)
    partial_path.write_bytes(content)
    os.replace(partial_path, path)
