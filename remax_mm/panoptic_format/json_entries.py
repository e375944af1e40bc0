"""Decoding of a JSON object whose lists are too large to be in memory as a whole."""
import json
import re
from typing import Any, Callable, Dict, List, Mapping, Tuple

_SPACE = re.compile(r'[ \t\n\r]*')
_decode = json.JSONDecoder().raw_decode


def decode_entries(text: str, convert: Mapping[str, Callable[[Any], Any]]) -> Dict[str, Any]:
    """Decode an object, and convert the entries of some of its lists as soon as each is decoded.

    Args:
        text: JSON of the object.
        convert: for names of lists, what makes of an entry what is kept of it.

    Raises:
        ValueError: the text is not JSON, or no object; or a converter raised it.
    """
    content: Dict[str, Any] = {}
    position, is_end = _open(text, _skip(text, 0), '{}')
    while not is_end:
        if not text.startswith('"', position):
            raise json.JSONDecodeError('Expected a name', text, position)
        name, position = _decode(text, position)
        position = _skip(text, _expect(text, _skip(text, position), ':'))
        if name in convert and text[position:position + 1] == '[':
            content[name], position = _decode_list(text, position, convert[name])
        else:
            content[name], position = _decode(text, position)
        position, is_end = _next(text, position, '}')
    if _skip(text, position) != len(text):
        raise json.JSONDecodeError('Extra data', text, position)
    return content


def _decode_list(text: str, position: int, convert: Callable[[Any], Any]) -> Tuple[List[Any], int]:
    """The converted entries of the list at a position, and the position after it."""
    entries: List[Any] = []
    position, is_end = _open(text, position, '[]')
    while not is_end:
        entry, position = _decode(text, position)
        entries.append(convert(entry))
        position, is_end = _next(text, position, ']')
    return entries, position


def _open(text: str, position: int, brackets: str) -> Tuple[int, bool]:
    """Position after an opening bracket, or after both of an empty pair, and whether it is empty."""
    position = _skip(text, _expect(text, position, brackets[0]))
    is_empty = text.startswith(brackets[1], position)
    return position + is_empty, is_empty


def _next(text: str, position: int, closing: str) -> Tuple[int, bool]:
    """Position of the next item, or after the closing bracket, and whether that one came."""
    position = _skip(text, position)
    if text.startswith(closing, position):
        return position + 1, True
    return _skip(text, _expect(text, position, ',')), False


def _expect(text: str, position: int, character: str) -> int:
    if not text.startswith(character, position):
        raise json.JSONDecodeError(f'Expected {character!r}', text, position)
    return position + 1


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
