"""Reading of the JSON files of annotation tools: checked while they are parsed."""
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import Annotated

from remax_mm.panoptic_format.file_content import read_file

MAX_BYTES = 2**31

Coordinate = Annotated[float, Field(allow_inf_nan=False)]
"""A finite number of pixels."""


def read_json(path: Path, schema: Any, what: str) -> Any:
    """Read a JSON and check it against the types of a schema.

    Args:
        path: The file.
        schema: A type that pydantic knows.
        what: The expected format, for the error message.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has another content.
    """
    content = read_file(str(path), what, max_bytes=MAX_BYTES)
    try:
        return TypeAdapter(schema).validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = '.'.join(map(str, first['loc']))
        raise ValueError(
            f'Expected {what} in {path}, but {place and f"at {place}: "}{first["msg"]}') from None


def relative_name(name: str, path: Path) -> str:
    """The name of a photo in an annotation file with slashes between its parts.

    Args:
        name: As in the file, which may be written on Windows.
        path: The file, for the error message.

    Raises:
        ValueError: the name is absolute or leaves its folder.
    """
    parts = PurePosixPath(name.replace('\\', '/')).parts
    if not parts or '..' in parts or parts[0] == '/' or PureWindowsPath(name).drive or '\0' in name:
        raise ValueError(f'Expected a path inside of the folder of photos in {path}, but got {name!r}')
    return '/'.join(parts)
