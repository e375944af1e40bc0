"""The schema of the JSON files of the COCO panoptic format; pydantic checks it while it parses a file.

Format: https://cocodataset.org/#format-data and #format-results, section 4 of both. Dataset, checker and
evaluation read their files with :func:`read_annotations`, which takes about the time of ``json.load``.
Converters check what they write.
"""
import reprlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

from pydantic import (AfterValidator, ConfigDict, Field, GetCoreSchemaHandler, Strict, TypeAdapter,
                      ValidationError, with_config)
from pydantic_core import CoreSchema, core_schema, from_json
from typing_extensions import Annotated, NotRequired, TypedDict, get_args, get_type_hints

from .file_content import read_file
from .findings import Finding
from .garbage_collection import without_garbage_collection
from .json_entries import decode_entries
from .segment_ids import MAX_ID


@dataclass(frozen=True)
class Expected:
    """Marks a type with the words for its values; an error has these instead of those of pydantic."""
    values: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.custom_error_schema(
            handler(source), custom_error_type='unexpected_value', custom_error_message=self.values)


_MAX_NUMBER = 2**63 - 1
_MAX_SIDE = 2**20  # of an image, as in OpenCV

_Int = Annotated[int, Strict()]  # neither a bool, nor 1.0, nor "1"
_Natural = Annotated[_Int, Field(ge=0, le=_MAX_NUMBER)]
_Text = Annotated[str, Strict(), Field(min_length=1, pattern=r'^[^\x00-\x1f]+$')]
_Finite = Annotated[float, Strict(), Field(allow_inf_nan=False)]

Flag = Annotated[_Int, Field(ge=0, le=1), Expected('0 or 1')]
CategoryId = Annotated[_Natural, Expected('an integer of at least 0')]
ImageId = Annotated[Union[_Natural, _Text], Expected('an integer of at least 0 or a string')]
SegmentId = Annotated[_Int, Field(ge=1, le=MAX_ID), Expected(f'an integer from 1 to {MAX_ID}')]
Side = Annotated[_Int, Field(ge=1, le=_MAX_SIDE), Expected(f'an integer from 1 to {_MAX_SIDE}')]
Text = Annotated[_Text, Expected('a string without control characters')]
Area = Annotated[Union[_Natural, Annotated[_Finite, Field(ge=0)]],
                 Field(union_mode='left_to_right'),
                 Expected('a finite number of at least 0')]
Box = Annotated[List[Annotated[Union[_Int, _Finite], Field(union_mode='left_to_right')]],
                Field(min_length=4, max_length=4),
                Expected('four finite numbers x, y, width, height')]
Color = Annotated[List[Annotated[_Int, Field(ge=0, le=255)]],
                  Field(min_length=3, max_length=3),
                  Expected('three integers from 0 to 255')]

_keep_other_keys = with_config(ConfigDict(extra='allow'))


@_keep_other_keys
class CategoryEntry(TypedDict):
    """Entry of ``categories``."""
    id: CategoryId
    name: Text
    isthing: Flag
    color: NotRequired[Color]
    supercategory: NotRequired[Text]


@_keep_other_keys
class ImageEntry(TypedDict):
    """Entry of ``images``; ``height`` and ``width`` are in pixels."""
    id: ImageId
    file_name: Text
    height: Side
    width: Side


@_keep_other_keys
class SegmentEntry(TypedDict):
    """Entry of ``segments_info``; ``area`` and ``bbox`` (x, y, width, height) are in pixels."""
    id: SegmentId
    category_id: CategoryId
    iscrowd: NotRequired[Flag]
    area: NotRequired[Area]
    bbox: NotRequired[Box]


@_keep_other_keys
class AnnotationEntry(TypedDict):
    """Entry of ``annotations``; a dataset may know the name of the PNG without ``file_name``."""
    image_id: ImageId
    file_name: NotRequired[Text]
    segments_info: List[SegmentEntry]


@_keep_other_keys
class NamedAnnotationEntry(TypedDict):
    """Entry of ``annotations`` with the name of its PNG."""
    image_id: ImageId
    file_name: Text
    segments_info: List[SegmentEntry]


class LoadedSegmentEntry(TypedDict):
    """What a dataset needs of a segment. The box is checked, but not kept: it takes most of the memory."""
    id: SegmentId
    category_id: CategoryId
    iscrowd: NotRequired[Flag]
    area: NotRequired[Area]
    bbox: NotRequired[Annotated[Box, AfterValidator(lambda box: None)]]


class LoadedAnnotationEntry(TypedDict):
    """What a dataset needs of an entry of ``annotations``."""
    image_id: ImageId
    file_name: NotRequired[Text]
    segments_info: List[LoadedSegmentEntry]


class CategoryFile(TypedDict):
    """Only the categories of a dataset."""
    categories: Annotated[List[CategoryEntry], Field(min_length=1)]


@_keep_other_keys
class ImageFile(TypedDict):
    """Images without annotations, or with annotations that are not used."""
    images: Annotated[List[ImageEntry], Field(min_length=1)]
    categories: Annotated[List[CategoryEntry], Field(min_length=1)]
    annotations: NotRequired[List[LoadedAnnotationEntry]]


@_keep_other_keys
class AnnotationFile(TypedDict):
    """Annotated images of a dataset."""
    images: Annotated[List[ImageEntry], Field(min_length=1)]
    categories: Annotated[List[CategoryEntry], Field(min_length=1)]
    annotations: Annotated[List[AnnotationEntry], Field(min_length=1)]


@_keep_other_keys
class LoadedFile(TypedDict):
    """Annotated images for training, see :class:`LoadedSegmentEntry`."""
    images: Annotated[List[ImageEntry], Field(min_length=1)]
    categories: Annotated[List[CategoryEntry], Field(min_length=1)]
    annotations: Annotated[List[LoadedAnnotationEntry], Field(min_length=1)]


@_keep_other_keys
class EvaluatedFile(TypedDict):
    """Annotations that predictions are compared with, as panopticapi takes them."""
    images: NotRequired[Annotated[List[ImageEntry], Field(min_length=1)]]
    categories: Annotated[List[CategoryEntry], Field(min_length=1)]
    annotations: Annotated[List[NamedAnnotationEntry], Field(min_length=1)]


@_keep_other_keys
class PredictionFile(TypedDict):
    """Predictions of a model."""
    annotations: Annotated[List[NamedAnnotationEntry], Field(min_length=1)]


MAX_JSON_BYTES = 2**33
"""Size limit of a JSON, more than ten times the size of COCO's."""

_ID_KEYS = dict(images='id', annotations='image_id', categories='id')
_CONTEXT_KEYS: Dict[Any, Tuple[str, ...]] = dict(
    images=('id', 'file_name'), annotations=('image_id', 'file_name'), categories=('id', 'name'))
_OPTIONAL_OF_CATEGORY = ('isthing', 'color', 'supercategory')
_EXPECTED_OF_TYPE = dict(
    list_type='a list', dict_type='an object', too_short='at least one entry', missing='the key')
_MOST_CHARACTERS = 60  # of an unexpected value in a message


class AnnotationContent(NamedTuple):
    """Content of a JSON, and how it violates the schema.

    Attributes:
        content: Valid entries, by list. A category is valid if its ``id`` and ``name`` are.
        skipped: Ids of the other entries, by list; of an annotation, the id of its image.
        findings: Violations of the schema.
    """
    content: Dict[str, List[dict]]
    skipped: Dict[str, Set[Any]]
    findings: List[Finding]


def read_annotations(path: str, schema: type, backend_args: Optional[dict] = None) -> AnnotationContent:
    """Read a JSON and check it against a schema.

    Args:
        path: The JSON, on any backend of mmengine's fileio.
        schema: One of the ``...File`` classes of this module.
        backend_args: Arguments of that backend.

    Raises:
        FileNotFoundError: the file does not exist.
        BrokenFileError: the path is not a regular file.
    """
    return parse_annotations(read_file(path, 'a JSON file', backend_args, MAX_JSON_BYTES), schema, path)


def parse_annotations(text: Union[bytes, str], schema: type, path: str) -> AnnotationContent:
    """Parse the text of a JSON; see :func:`read_annotations`."""
    try:
        text = text.decode() if isinstance(text, bytes) else text  # the bytes are not needed any more
        return AnnotationContent(_parse_correct(text, schema), {name: set() for name in _ID_KEYS}, [])
    except (ValueError, RecursionError):  # a decoder or validator found an error
        pass
    try:
        content = _validator(schema).validate_json(text)
        return AnnotationContent(content, {name: set() for name in _ID_KEYS}, [])
    except ValidationError as error:
        violations = error.errors(include_url=False, include_context=False)
    if violations[0]['type'] == 'json_invalid':
        finding = Finding('json_invalid', path, f'it cannot be decoded: {violations[0]["msg"]}')
        return AnnotationContent({name: []
                                  for name in _ID_KEYS}, {name: set()
                                                          for name in _ID_KEYS}, [finding])

    content = from_json(text)
    findings = [
        _describe(content, violation['type'], violation['loc'], violation['msg'], violation['input'], path)
        for violation in violations
    ]
    return AnnotationContent(*_split_entries(content, [violation['loc'] for violation in violations]),
                             findings)


def _parse_correct(text: str, schema: type) -> Dict[str, Any]:
    """Content of a JSON without errors, with few objects in memory at a time.

    Raises:
        ValueError: the JSON has an error.
        RecursionError: it is nested too deeply.
    """
    with without_garbage_collection():
        content = decode_entries(text, _entry_validators(schema))
    # Other lists than these are checked by the slow way.
    names = getattr(schema, '__required_keys__') | (_entry_validators(schema).keys() & content.keys())
    if not all(isinstance(content.get(name), list) and content[name] for name in names):
        raise ValueError('a list is missing or empty')
    return content


@lru_cache(maxsize=None)
def _entry_validators(schema: type) -> Dict[str, Callable[[Any], Any]]:
    """What validates an entry of each list of a schema."""
    hints = get_type_hints(schema)  # a list for each name
    return {name: TypeAdapter(*get_args(hint)).validate_python for name, hint in hints.items()}


@lru_cache(maxsize=None)
def _validator(schema: type) -> TypeAdapter:
    return TypeAdapter(schema)


def _describe(content: Any, kind: str, location: Tuple[Union[int, str], ...], message: str, found: Any,
              path: str) -> Finding:
    """A violation with its place in the file, such as ``annotations[3].segments_info[2].iscrowd``."""
    place = ''.join(f'[{key}]' if isinstance(key, int) else f'.{key}' for key in location).lstrip('.')
    place = f'{place or "the file"}{_context(content, location)}'
    if location[-1:] == ('isthing', ):
        name = 'isthing_missing'
    elif kind == 'missing':
        name = 'key_missing'
    elif location[-3:-2] == ('segments_info', ) and location[-1] == 'id' and isinstance(found, int):
        name = 'segment_id_invalid'
    else:
        name = 'value_invalid'
    if kind == 'missing':
        return Finding(name, path, f'{place} is missing')
    expected = _EXPECTED_OF_TYPE.get(kind, message)
    return Finding(name, path, f'expected {expected} as {place}, but got {_shorten(found)}')


def _context(content: Any, location: Sequence[Union[int, str]]) -> str:
    """Ids of the entry at a location, such as `` (image_id 7, file_name '7.png', segment id 12)``."""
    if len(location) < 3:
        return ''
    entry = content[location[0]][location[1]]
    known = {key: entry.get(key) for key in _CONTEXT_KEYS[location[0]] if key != location[2]}
    if len(location) > 4 and location[4] != 'id':
        known['segment id'] = entry[location[2]][location[3]].get('id')
    shown = [f'{key} {_shorten(value)}' for key, value in known.items() if value is not None]
    return f' ({", ".join(shown)})' if shown else ''


def _shorten(value: Any) -> str:
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxlong = shortener.maxother = _MOST_CHARACTERS
    shortener.maxlevel = 2
    return shortener.repr(value)


def _split_entries(content: Any, locations: Sequence[Sequence[Union[int, str]]]) -> Tuple[dict, dict]:
    """The valid entries of each list, and the ids of the others."""
    invalid = {
        tuple(location[:2])
        for location in locations
        if not (location[0:1] == ('categories', ) and location[2:3] and location[2] in _OPTIONAL_OF_CATEGORY)
    }
    valid: Dict[str, List[dict]] = {}
    skipped: Dict[str, Set[Any]] = {}
    for name, key in _ID_KEYS.items():
        entries = content.get(name) if isinstance(content, dict) else None
        entries = entries if isinstance(entries, list) else []
        valid[name] = [entry for index, entry in enumerate(entries) if (name, index) not in invalid]
        ids = [
            entry.get(key) for index, entry in enumerate(entries)
            if (name, index) in invalid and isinstance(entry, dict)
        ]
        skipped[name] = {value for value in ids if isinstance(value, (int, str))}
    return valid, skipped
