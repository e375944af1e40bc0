"""Variants of the JSON files: wrong values and types, missing and repeated entries, text that is not JSON."""
import copy
import json
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from tests.reliability.fuzz_dataset import (CROWD, DATASET, ONLY_EVALUATION, STEPS, Variant, change_bytes,
                                            cut, original_folder, overwrite, write_json)


def _is_natural(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != '' and value.isprintable()


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < float('inf')


def _is_flag(value: Any) -> bool:
    return type(value) is int and value in (0, 1)


class Field(NamedTuple):
    """A key of the JSON: which values have the right form, and who refuses another value of that form."""
    location: Tuple[Any, ...]
    is_valid: Callable[[Any], bool]
    if_changed: Tuple[str, ...]


_ANY_ID = (lambda value: _is_natural(value) or _is_text(value))
_NEVER = (lambda value: False)
_SEGMENT = ('annotations', 1, 'segments_info')
GT_FIELDS = {
    'file':
    Field((), _NEVER, STEPS),
    'images':
    Field(('images', ), _NEVER, STEPS),
    'images.entry':
    Field(('images', 1), _NEVER, STEPS),
    'images.id':
    Field(('images', 1, 'id'), _ANY_ID, DATASET),
    'images.file_name':
    Field(('images', 1, 'file_name'), _is_text, DATASET),
    'images.height':
    Field(('images', 1, 'height'), lambda v: _is_natural(v) and 1 <= v <= 2**20, DATASET),
    'images.width':
    Field(('images', 1, 'width'), lambda v: _is_natural(v) and 1 <= v <= 2**20, DATASET),
    'annotations':
    Field(('annotations', ), _NEVER, STEPS),
    'annotations.entry':
    Field(('annotations', 1), _NEVER, STEPS),
    'annotations.image_id':
    Field(('annotations', 1, 'image_id'), _ANY_ID, STEPS),
    'annotations.file_name':
    Field(('annotations', 1, 'file_name'), _is_text, STEPS),
    'segments_info':
    Field(_SEGMENT, lambda v: v == [], STEPS),
    'segments_info.entry':
    Field((*_SEGMENT, 0), _NEVER, STEPS),
    'segment.id':
    Field((*_SEGMENT, 0, 'id'), lambda v: _is_natural(v) and 1 <= v < 256**3, STEPS),
    'segment.category_id':
    Field((*_SEGMENT, 0, 'category_id'), _is_natural, STEPS),
    'segment.iscrowd':
    Field((*_SEGMENT, 0, 'iscrowd'), _is_flag, ()),
    'segment.area':
    Field((*_SEGMENT, 0, 'area'), lambda v: _is_number(v) and v >= 0, DATASET),
    'segment.bbox':
    Field((*_SEGMENT, 0, 'bbox'), lambda v: isinstance(v, list) and len(v) == 4 and all(map(_is_number, v)),
          ()),
    'crowd.id':
    Field((*_SEGMENT, CROWD, 'id'), lambda v: _is_natural(v) and 1 <= v < 256**3, STEPS),
    'crowd.iscrowd':
    Field((*_SEGMENT, CROWD, 'iscrowd'), _is_flag, ()),
    'categories':
    Field(('categories', ), _NEVER, STEPS),
    'categories.entry':
    Field(('categories', 2), _NEVER, STEPS),
    'categories.id':
    Field(('categories', 2, 'id'), _is_natural, STEPS),
    'categories.name':
    Field(('categories', 2, 'name'), _is_text, ()),
    'categories.isthing':
    Field(('categories', 2, 'isthing'), _is_flag, ()),
    'categories.color':
    Field(('categories', 2, 'color'), _NEVER, STEPS),
}
PRED_FIELDS = {
    'file': Field((), _NEVER, ONLY_EVALUATION),
    'annotations': Field(('annotations', ), _NEVER, ONLY_EVALUATION),
    'annotations.entry': Field(('annotations', 1), _NEVER, ONLY_EVALUATION),
    'annotations.image_id': Field(('annotations', 1, 'image_id'), _ANY_ID, ONLY_EVALUATION),
    'annotations.file_name': Field(('annotations', 1, 'file_name'), _is_text, ONLY_EVALUATION),
    'segments_info': Field(_SEGMENT, lambda v: v == [], ONLY_EVALUATION),
    'segments_info.entry': Field((*_SEGMENT, 0), _NEVER, ONLY_EVALUATION),
    'segment.id': Field((*_SEGMENT, 0, 'id'), lambda v: _is_natural(v) and 1 <= v < 256**3, ONLY_EVALUATION),
    'segment.category_id': Field((*_SEGMENT, 0, 'category_id'), _is_natural, ONLY_EVALUATION),
}
VALUES: Dict[str, Any] = {
    'null': None,
    'true': True,
    'false': False,
    'empty-text': '',
    'text-0': '0',
    'text-1': '1',
    'text': 'unicorn',
    'unicode': 'ü☃日本',
    'nul': 'a\0b',
    'parent-folder': '../../x.png',
    'minus-1': -1,
    'zero': 0,
    'one': 1,
    'half': 0.5,
    'whole-float': 1.0,
    'nan': float('nan'),
    'infinity': float('inf'),
    '2^24': 2**24,
    '2^31': 2**31,
    '2^63': 2**63,
    '10^40': 10**40,
    'list': [],
    'object': {},
    'list-of-4': [0, 0, 1, 1],
    'list-of-texts': ['0', '0', '1', '1'],
    'deep': json.loads('[' * 60 + ']' * 60),
}


def _edit(file: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change the content of a JSON in place, or replace it by the result."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        changed = change(content)
        write_json(folder / file, content if changed is None else changed)

    return apply


def _set(location: Sequence[Any], value: Any) -> Callable[[Any], Any]:

    def change(content: Any) -> None:
        for key in location[:-1]:
            content = content[key]
        content[location[-1]] = value

    return change


def _drop(location: Sequence[Any]) -> Callable[[Any], Any]:

    def change(content: Any) -> None:
        for key in location[:-1]:
            content = content[key]
        del content[location[-1]]

    return change


def value_variants() -> Iterator[Variant]:
    """Every field with every value."""
    content = _read_original()
    for file, fields, steps in (('gt.json', GT_FIELDS, STEPS), ('pred.json', PRED_FIELDS, ONLY_EVALUATION)):
        for field_name, field in fields.items():
            original = content[file]
            for key in field.location:
                original = original[key]
            for value_name, value in VALUES.items():
                refused_by = steps
                if field.is_valid(value):
                    refused_by = () if value == original else field.if_changed
                if (file, field_name, value) == ('gt.json', 'images.id', 1):
                    refused_by = STEPS  # the id of another image
                change = _set(field.location, value) if field.location else (lambda _: None)
                apply = _edit(file, change)
                if not field.location:
                    apply = _replace(file, json.dumps(value).encode())
                yield Variant(f'{file}/{field_name}/{value_name}', apply, refused_by)


def missing_key_variants() -> Iterator[Variant]:
    """Every key left out."""
    optional = dict.fromkeys(('iscrowd', 'area', 'bbox', 'color'), ())
    for file, fields, steps in (('gt.json', GT_FIELDS, STEPS), ('pred.json', PRED_FIELDS, ONLY_EVALUATION)):
        locations = [field.location for field in fields.values() if field.location]
        for location in locations:
            key = location[-1]
            if isinstance(key, int):
                continue
            refused_by = optional.get(key, steps)
            if file == 'gt.json' and location == ('images', ):
                refused_by = DATASET
            elif file == 'gt.json' and location == ('annotations', 1, 'file_name'):
                refused_by = ONLY_EVALUATION  # the dataset derives the name from that of the photo
            yield Variant(f'{file}/missing/{".".join(map(str, location))}', _edit(file, _drop(location)),
                          refused_by)


def _append(part: str, index: int, **values: Any) -> Callable[[Any], None]:
    return lambda content: content[part].append(dict(copy.deepcopy(content[part][index]), **values))


def entry_variants() -> Iterator[Variant]:
    """Repeated, missing, swapped and additional entries."""

    def segments(content: Any, index: int = 1) -> List[dict]:
        return content['annotations'][index]['segments_info']

    def swap(*locations: Tuple[Any, ...]) -> Callable[[Any], None]:

        def change(content: Any) -> None:
            parents = []
            for location in locations:
                parent = content
                for key in location[:-1]:
                    parent = parent[key]
                parents.append(parent)
            (one, first), (other, second) = zip(parents, [location[-1] for location in locations])
            one[first], other[second] = other[second], one[first]

        return change

    changes: Dict[str, Tuple[Callable[[Any], Any], Tuple[str, ...]]] = {
        'repeat/image': (_append('images', 1), STEPS),
        'repeat/image-id': (_append('images', 1, file_name='x.jpg'), STEPS),
        'repeat/photo': (_append('images', 1, id=9), STEPS),
        'repeat/annotation': (_append('annotations', 1), STEPS),
        'repeat/annotation-of-image': (_append('annotations', 1, file_name='x.png'), STEPS),
        'repeat/png': (_set(('annotations', 1, 'file_name'), '000001.png'), STEPS),
        'repeat/category': (_append('categories', 1), STEPS),
        'repeat/category-id': (_append('categories', 1, name='fox'), STEPS),
        'repeat/category-name': (_append('categories', 1, id=77), STEPS),
        'repeat/segment': (lambda c: segments(c).append(dict(segments(c)[0])), STEPS),
        'repeat/segment-id': (lambda c: segments(c)[1].update(id=segments(c)[0]['id']), STEPS),
        'additional/segment': (lambda c: segments(c).append(dict(id=5, category_id=3)), STEPS),
        'additional/annotation': (lambda c: c['annotations'].append(
            dict(image_id=9, file_name='x.png', segments_info=[])), ONLY_EVALUATION),
        'additional/image': (lambda c: c['images'].append(
            dict(id=9, file_name='x.jpg', height=4, width=4)), DATASET),
        'additional/category': (lambda c: c['categories'].append(dict(id=99, name='fox', isthing=1)), ()),
        'additional/keys': (lambda c: [
            entry.update(note='x', score=None) for part in ('images', 'annotations', 'categories')
            for entry in c[part]
        ] and None, ()),
        'without/image': (lambda c: c['images'].pop(1) and None, ()),
        'without/annotation': (lambda c: c['annotations'].pop(1) and None, DATASET),
        'without/category': (lambda c: c['categories'].pop(1) and None, STEPS),
        'without/segment': (lambda c: segments(c).pop(1) and None, STEPS),
        'without/crowd': (lambda c: segments(c).pop(CROWD) and None, STEPS),
        'without/all-images': (_set(('images', ), []), STEPS),
        'without/all-annotations': (_set(('annotations', ), []), STEPS),
        'without/all-categories': (_set(('categories', ), []), STEPS),
        'swap/segment-ids': (swap((*_SEGMENT, 0, 'id'), (*_SEGMENT, 2, 'id')), DATASET),
        'swap/photos': (swap(('images', 0, 'file_name'), ('images', 1, 'file_name')), DATASET),
        'swap/pngs': (swap(('annotations', 0, 'file_name'), ('annotations', 1, 'file_name')), STEPS),
        'swap/image-ids': (swap(('images', 0, 'id'), ('images', 1, 'id')), DATASET),
        'swap/annotation-ids': (swap(('annotations', 0, 'image_id'), ('annotations', 1, 'image_id')), STEPS),
        'swap/sides': (swap(('images', 1, 'height'), ('images', 1, 'width')), DATASET),
        'order/images': (lambda c: c['images'].reverse(), ()),
        'order/annotations': (lambda c: c['annotations'].reverse(), ()),
        'order/categories': (lambda c: c['categories'].reverse(), ()),
        'order/segments': (lambda c: segments(c).reverse(), ()),
        'huge/segments': (lambda c: segments(c).extend(
            dict(id=1000000 + i, category_id=3) for i in range(200000)), STEPS),
        'huge/repeated-segments': (lambda c: segments(c).extend(
            dict(id=7, category_id=3) for i in range(100000)), STEPS),
        'huge/categories': (lambda c: c['categories'].extend(
            dict(id=1000 + i, name=f'class {i}', isthing=0) for i in range(20000)), ()),
        'huge/images': (lambda c: c['images'].extend(
            dict(id=1000 + i, file_name=f'{i}.jpg', height=4, width=4) for i in range(50000)), DATASET),
        'huge/text': (_set(('images', 1, 'file_name'), 'x' * 10**6), DATASET),
        'huge/wrong-types': (lambda c: segments(c).extend(
            dict(id=str(i), category_id='3', iscrowd='0') for i in range(50000)), STEPS),
    }  # yapf: disable
    for name, (change, refused_by) in changes.items():
        yield Variant(f'gt.json/{name}', _edit('gt.json', change), refused_by)
    for name in ('repeat/annotation', 'repeat/annotation-of-image', 'repeat/png', 'repeat/segment',
                 'repeat/segment-id', 'additional/segment', 'without/annotation', 'without/segment',
                 'without/all-annotations', 'swap/pngs', 'swap/annotation-ids', 'huge/segments',
                 'huge/repeated-segments'):
        yield Variant(f'pred.json/{name}', _edit('pred.json', changes[name][0]), ONLY_EVALUATION)
    for name in ('additional/annotation', 'order/annotations', 'order/segments'):
        yield Variant(f'pred.json/{name}', _edit('pred.json', changes[name][0]), ())


def _replace(file: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / file).write_bytes(content)


def text_variants() -> Iterator[Variant]:
    """Files that are not JSON, or JSON in another spelling."""
    for file, steps in (('gt.json', STEPS), ('pred.json', ONLY_EVALUATION)):
        for percent in (0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99):
            yield Variant(f'{file}/truncated/{percent}', change_bytes(file, cut(percent / 100)), steps)
        for percent in (10, 35, 60, 85):
            for name, new in (('control', b'\x01'), ('not-utf8', b'\xff\xfe'), ('nul', bytes(40))):
                yield Variant(f'{file}/{name}/{percent}', change_bytes(file, overwrite(percent / 100, new)),
                              steps)
        for name, change in {
                'utf16': lambda text: text.decode().encode('utf-16'),
                'trailing-text': lambda text: text + b' x',
                'twice': lambda text: text + text,
                'comment': lambda text: b'// annotations\n' + text,
                'single-quotes': lambda text: text.replace(b'"', b"'"),
                'trailing-comma': lambda text: text[:-1] + b',}',
                'deep-list': lambda text: b'[' * 10**6,
                'deep-object': lambda text: b'{"a":' * 10**5,
                'huge-number': lambda text: text.replace(b'"image_id": 2', b'"image_id": ' + b'9' * 10**5, 1),
                'huge-exponent': lambda text: text.replace(b'"image_id": 2', b'"image_id": 1e999999999', 1),
                'lone-surrogate': lambda text: text.replace(b'"000002.', b'"\\ud800', 1),
                'repeated-key': lambda text: text.replace(b'"id": 255', b'"id": 254, "id": 255', 1),
                'png': lambda text: b'\x89PNG\r\n\x1a\n' + text,
                'spaces': lambda text: b' ' * 10**6,
                'csv': lambda text: b'id,file_name\n1,000001.jpg\n',
        }.items():
            yield Variant(f'{file}/text/{name}', change_bytes(file, change), steps)
        for name, change in {
                'indented': lambda text: json.dumps(json.loads(text), indent=4).encode(),
                'unicode-escapes': lambda text: text.replace(b'jpg', b'\\u006apg'),
                'white-space': lambda text: b'\n\t ' + text + b'\n\n',
        }.items():
            yield Variant(f'{file}/text/{name}', change_bytes(file, change), ())


def _read_original() -> Dict[str, Any]:
    return {file: json.loads((original_folder() / file).read_text()) for file in ('gt.json', 'pred.json')}
