"""Wrong and unusual variants of a small panoptic dataset, given to checker, training and evaluation.

    python tests/reliability/fuzz_annotations.py                     # all variants, a table of the outcomes
    python tests/reliability/fuzz_annotations.py --pattern 'png/.*'  # some of them, each with its message

A variant is one change of one file of a correct dataset. It states which of the three steps read the changed
part and must refuse it; the other steps must accept it. The variants are always the same.
"""
import argparse
import contextlib
import copy
import importlib.util
import io
import json
import os
import re
import resource
import shutil
import signal
import struct
import tempfile
import time
import zlib
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Collection, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np
from mmengine.registry import DefaultScope
from PIL import Image

import remax_mm  # noqa: F401  (registers the datasets)
from remax_mm.datasets import LoadImageStrict, LoadPanopticMap, PanopticMapDataset

TOOLS = Path(remax_mm.__file__).resolve().parents[1] / 'tools' / 'analysis_tools'
STEPS = CHECKER, TRAINING, EVALUATION = ('checker', 'training', 'evaluation')
DATASET = (CHECKER, TRAINING)  # the steps that read the photos
OUTCOMES = ('refused clearly', 'refused unclearly', 'silently accepted', 'over time', 'accepted',
            'false alarm')
"""The last two are of correct variants."""

TIME_LIMIT = 25  # seconds for each step
MEMORY_LIMIT = 8 * 2**30  # bytes more than before


class Variant(NamedTuple):
    """A change of the dataset.

    Attributes:
        name: Path-like, such as ``json/images.height/null``.
        apply: Changes the files in a folder.
        refused_by: The steps that must refuse the changed dataset.
    """
    name: str
    apply: Callable[[Path], Any]
    refused_by: Tuple[str, ...]


class Result(NamedTuple):
    """Outcome of one step for one variant, and what the step says."""
    variant: str
    step: str
    outcome: str
    message: str


# ---- the correct dataset

CATEGORIES = [
    dict(id=3, name='cat', isthing=1, color=[200, 0, 0]),
    dict(id=7, name='dog', isthing=1, color=[0, 200, 0]),
    dict(id=90, name='grass', isthing=0, color=[0, 0, 200]),
    dict(id=95, name='sky', isthing=0, color=[9, 9, 9]),
]
SIZES = ((48, 64), (40, 72), (56, 40))
CROWD = 4  # index in segments_info


def write_dataset(folder: Path) -> None:
    """Write ``gt.json``, ``gt/``, ``pred.json``, ``pred/`` and ``images/`` with three images."""
    rng = np.random.default_rng(0)
    for name in ('images', 'gt', 'pred'):
        (folder / name).mkdir(parents=True)
    images, annotations, predictions = [], [], []
    for number, (height, width) in enumerate(SIZES, 1):
        name = f'{number:06d}'
        noise = cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (width, height))
        noise = np.clip(noise + rng.normal(0, 9, noise.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / 'images' / f'{name}.jpg'), noise, [cv2.IMWRITE_JPEG_QUALITY, 95])
        images.append(dict(id=number, file_name=f'{name}.jpg', height=height, width=width))

        category_of = {300000 + number: 90, 66000: 95, 255: 3, 256 + number: 3, 1000: 7}
        ids = np.full((height, width), 300000 + number)
        ids[:14] = 66000
        ids[5:20, 4:15] = 255
        ids[5:20, 15:30] = 256 + number
        ids[24:32, 20:38] = 1000
        ids[-3:] = 0
        write_png(folder / 'gt' / f'{name}.png', ids)
        segments = [_describe(ids, i, c, iscrowd=int(i == 1000)) for i, c in category_of.items()]
        annotations.append(dict(image_id=number, file_name=f'{name}.png', segments_info=segments))

        guess = np.where(ids == 1000, 255, ids)
        guess[:, :3] = 255
        write_png(folder / 'pred' / f'{name}.png', guess)
        segments = [_describe(guess, i, category_of[i]) for i in (255, 256 + number, 66000, 300000 + number)]
        predictions.append(dict(image_id=number, file_name=f'{name}.png', segments_info=segments))
    write_json(folder / 'gt.json', dict(images=images, annotations=annotations, categories=CATEGORIES))
    write_json(folder / 'pred.json', dict(annotations=predictions))


def _describe(ids: np.ndarray, segment_id: int, category_id: int, **values: int) -> dict:
    rows, columns = np.nonzero(ids == segment_id)
    box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
    return dict(id=segment_id, category_id=category_id, area=len(rows), bbox=box, **values)


def write_png(path: Path, ids: np.ndarray) -> None:
    cv2.imwrite(str(path), np.stack([ids // 256**2, ids // 256 % 256, ids % 256], -1).astype(np.uint8))


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


# ---- variants of the JSON files


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
ONLY_EVALUATION = (EVALUATION, )
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
        'without/all-images': (_set(('images', ), []), DATASET),
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


def _change_bytes(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes()))


def _cut(fraction: float) -> Callable[[bytes], bytes]:
    return lambda whole: whole[:int(len(whole) * fraction)]


def _overwrite(fraction: float, new: bytes) -> Callable[[bytes], bytes]:

    def change(whole: bytes) -> bytes:
        start = int(len(whole) * fraction)
        return (whole[:start] + new + whole[start + len(new):])[:len(whole)]

    return change


def text_variants() -> Iterator[Variant]:
    """Files that are not JSON, or JSON in another spelling."""
    for file, steps in (('gt.json', STEPS), ('pred.json', ONLY_EVALUATION)):
        for percent in (0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99):
            yield Variant(f'{file}/truncated/{percent}', _change_bytes(file, _cut(percent / 100)), steps)
        for percent in (10, 35, 60, 85):
            for name, new in (('control', b'\x01'), ('not-utf8', b'\xff\xfe'), ('nul', bytes(40))):
                yield Variant(f'{file}/{name}/{percent}', _change_bytes(file, _overwrite(percent / 100, new)),
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
            yield Variant(f'{file}/text/{name}', _change_bytes(file, change), steps)
        for name, change in {
                'indented': lambda text: json.dumps(json.loads(text), indent=4).encode(),
                'unicode-escapes': lambda text: text.replace(b'jpg', b'\\u006apg'),
                'white-space': lambda text: b'\n\t ' + text + b'\n\n',
        }.items():
            yield Variant(f'{file}/text/{name}', _change_bytes(file, change), ())


# ---- variants of the files


def _read_original() -> Dict[str, Any]:
    return {file: json.loads(Path(_original().name, file).read_text()) for file in ('gt.json', 'pred.json')}


def _link(target: str) -> Callable[[Path], Any]:
    return lambda path: (path.unlink(), path.symlink_to(target))


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _to_sparse(path: Path) -> None:
    with path.open('r+b') as file:
        file.truncate(2**42)


SPECIAL_FILES: Dict[str, Callable[[Path], Any]] = {
    'missing': lambda path: path.unlink(),
    'empty': lambda path: path.write_bytes(b''),
    'one-byte': lambda path: path.write_bytes(path.read_bytes()[:1]),
    'text': lambda path: path.write_text('404 Not Found'),
    'html': lambda path: path.write_text('<!DOCTYPE html><html><body>Sign in</body></html>'),
    'zeros': lambda path: path.write_bytes(bytes(path.stat().st_size)),
    'random': lambda path: path.write_bytes(np.random.default_rng(1).bytes(path.stat().st_size)),
    'folder': _to_folder,
    'fifo': _to_fifo,
    'endless': _link('/dev/zero'),
    'null-device': _link('/dev/null'),
    'broken-link': _link('/nowhere/at/all'),
    'link-loop': lambda path: (path.unlink(), path.symlink_to(path.name)),
    'sparse': _to_sparse,
}


def special_file_variants() -> Iterator[Variant]:
    """Each file replaced by something that is not such a file."""
    for file, steps in (('gt.json', STEPS), ('pred.json', ONLY_EVALUATION), ('images/000002.jpg', DATASET),
                        ('gt/000002.png', STEPS), ('pred/000002.png', ONLY_EVALUATION)):
        for name, change in SPECIAL_FILES.items():
            yield Variant(f'{file}/special/{name}', lambda folder, c=change, f=file: c(folder / f), steps)
    for name, steps in (('images', DATASET), ('gt', STEPS), ('pred', ONLY_EVALUATION)):
        yield Variant(f'{name}/missing', lambda folder, n=name: shutil.rmtree(folder / n), steps)
        yield Variant(
            f'{name}/empty', lambda folder, n=name: (shutil.rmtree(folder / n), (folder / n).mkdir()), steps)


def _resave(file: str, change: Callable[[Image.Image], Image.Image], **options: Any) -> Callable[[Path], Any]:
    """Change an image and save it with PIL."""

    def apply(folder: Path) -> None:
        with Image.open(folder / file) as image:
            image.load()
            changed = change(image)
        changed.save(folder / file, **{'format': 'PNG' if file.endswith('.png') else 'JPEG', **options})

    return apply


def _claim_png_size(width: int, height: int) -> Callable[[bytes], bytes]:

    def change(whole: bytes) -> bytes:
        header = struct.pack('>II', width, height) + whole[24:29]
        return whole[:16] + header + struct.pack('>I', zlib.crc32(b'IHDR' + header)) + whole[33:]

    return change


def _claim_jpeg_size(width: int, height: int) -> Callable[[bytes], bytes]:

    def change(whole: bytes) -> bytes:
        frame = whole.index(b'\xff\xc0') + 5
        return whole[:frame] + struct.pack('>HH', height, width) + whole[frame + 4:]

    return change


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


SIZE_CHANGES: Dict[str, Callable[[Image.Image], Image.Image]] = {
    'transposed': lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    'higher': lambda image: image.resize((image.width, image.height + 1), Image.Resampling.NEAREST),
    'narrower': lambda image: image.resize((image.width - 1, image.height), Image.Resampling.NEAREST),
    'twice': lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST),
    'one-pixel': lambda image: image.crop((20, 20, 21, 21)),
    'one-row': lambda image: image.crop((0, 20, image.width, 21)),
    'long': lambda image: image.resize((30000, 1), Image.Resampling.NEAREST),
}
CLAIMED_SIZES = ((30000, 30000), (65500, 65500), (1, 1), (72, 41), (40, 72), (65535, 1), (0, 0))


def photo_variants() -> Iterator[Variant]:
    """Photos that are damaged, or have another size or another encoding."""
    file = 'images/000002.jpg'
    for percent in (2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99):
        yield Variant(f'photo/truncated/{percent}', _change_bytes(file, _cut(percent / 100)), DATASET)
    rng = np.random.default_rng(2)
    for percent in (35, 50, 65, 80):
        for name, new in (('zeros', bytes(200)), ('random', rng.bytes(200)), ('end-marker', b'\xff\xd9'),
                          ('start-marker', b'\xff\xd8')):
            change = _overwrite(percent / 100, new)
            yield Variant(f'photo/damaged/{name}-{percent}', _change_bytes(file, change), DATASET)
        yield Variant(
            f'photo/damaged/cut-out-{percent}',
            _change_bytes(
                file, lambda whole, p=percent: _cut(p / 100)(whole) + whole[len(whole) * p // 100 + 150:]),
            DATASET)
    for name, change in SIZE_CHANGES.items():
        yield Variant(f'photo/size/{name}', _resave(file, change), DATASET)
    for width, height in CLAIMED_SIZES:
        yield Variant(f'photo/claimed/{width}x{height}', _change_bytes(file, _claim_jpeg_size(width, height)),
                      DATASET)
    for orientation in (5, 6, 7, 8):
        yield Variant(f'photo/exif/{orientation}', _resave(file, lambda i: i, exif=_exif(orientation)),
                      DATASET)
        apply = _resave(file, SIZE_CHANGES['transposed'], exif=_exif(orientation))
        yield Variant(f'photo/exif/transposed-{orientation}', apply, ())
    for name, apply in {
            'gray': _resave(file, lambda image: image.convert('L')),
            'cmyk': _resave(file, lambda image: image.convert('CMYK')),
            'progressive': _resave(file, lambda image: image, progressive=True),
            'png': _resave(file, lambda image: image, format='PNG'),
            'webp': _resave(file, lambda image: image, format='WEBP'),
            'mpo': _resave(file, lambda image: image, format='MPO', save_all=True),
            'bytes-behind': _change_bytes(file, lambda whole: whole + b'camera notes'),
            'exif-damaged': _resave(file, lambda image: image, exif=b'Exif\0\0MM\0*\xff\xff\xff\xff'),
    }.items():
        yield Variant(f'photo/encoding/{name}', apply, ())


def _change_ids(file: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], Any]:

    def apply(folder: Path) -> None:
        png = cv2.imread(str(folder / file)).astype(np.int64)
        write_png(folder / file, change(png[..., 2] + 256 * png[..., 1] + 256**2 * png[..., 0]))

    return apply


def _set_pixel(ids: np.ndarray, value: int) -> np.ndarray:
    ids[25, 5] = value
    return ids


def _to_16_bits(file: str, factor: int) -> Callable[[Path], Any]:
    return lambda folder: cv2.imwrite(
        str(folder / file),
        cv2.imread(str(folder / file)).astype(np.uint16) * factor)


def png_variants() -> Iterator[Variant]:
    """PNGs that are damaged, or have other ids, another size or another mode."""
    for file, steps in (('gt/000002.png', STEPS), ('pred/000002.png', ONLY_EVALUATION)):
        start = file.split('/')[0] + '-png'
        for percent in (2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98):
            yield Variant(f'{start}/truncated/{percent}', _change_bytes(file, _cut(percent / 100)), steps)
        for percent in (20, 40, 60, 80):
            for name, new in (('zeros', bytes(8)), ('ones', b'\xff' * 8)):
                change = _overwrite(percent / 100, new)
                yield Variant(f'{start}/damaged/{name}-{percent}', _change_bytes(file, change), steps)
        for name, change in SIZE_CHANGES.items():
            yield Variant(f'{start}/size/{name}', _resave(file, change), steps)
        for width, height in CLAIMED_SIZES:
            yield Variant(f'{start}/claimed/{width}x{height}',
                          _change_bytes(file, _claim_png_size(width, height)), steps)

        ids: Dict[str, Callable[[np.ndarray], np.ndarray]] = {
            'shifted': lambda ids: ids + 1,
            'zero': np.zeros_like,
            'one-segment': lambda ids: np.full_like(ids, 255),
            'unlisted': lambda ids: _set_pixel(ids, 77),
            'largest': lambda ids: _set_pixel(ids, 256**3 - 1),
            'without-a-segment': lambda ids: np.where(ids == 255, 0, ids),
            'red-and-blue': lambda ids: ids % 256 * 256**2 + ids // 256 % 256 * 256 + ids // 256**2,
        }
        for name, change in ids.items():
            yield Variant(f'{start}/ids/{name}', _change_ids(file, change), steps)
        if file.startswith('gt'):
            yield Variant(f'{start}/ids/void-pixel', _change_ids(file, lambda ids: _set_pixel(ids, 0)),
                          DATASET)
        for name, apply in {
                'gray': _resave(file, lambda image: image.convert('L')),
                'gray-alpha': _resave(file, lambda image: image.convert('LA')),
                'one-bit': _resave(file, lambda image: image.convert('1')),
                'palette-index': _resave(file, lambda image: Image.fromarray(np.asarray(image)[..., 0])),
                'gray-16':
                _resave(file, lambda image: Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16))),
                'rgb-16': _to_16_bits(file, 257),
                'rgb-16-dark': _to_16_bits(file, 1),
                'jpeg': _resave(file, lambda image: image, format='JPEG'),
                'gif': _resave(file, lambda image: image, format='GIF'),
        }.items():
            yield Variant(f'{start}/mode/{name}', apply, steps)
        for name, apply in {
                'alpha': _resave(file, lambda image: image.convert('RGBA')),
                'palette-of-ids': _resave(file, lambda image: image.quantize(256, dither=Image.Dither.NONE)),
                'compressed': _resave(file, lambda image: image, compress_level=9),
                'bytes-behind': _change_bytes(file, lambda whole: whole + b'notes'),
        }.items():
            yield Variant(f'{start}/encoding/{name}', apply, ())


def all_variants() -> List[Variant]:
    """All variants, in a fixed order; the first is the correct dataset."""
    return [
        Variant('correct', lambda folder: None, ()), *value_variants(), *missing_key_variants(),
        *entry_variants(), *text_variants(), *special_file_variants(), *photo_variants(), *png_variants()
    ]


# ---- running the steps


@lru_cache(maxsize=None)
def _load_tool(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_checker(folder: Path) -> str:
    """Errors that the checker reports; empty for a correct dataset."""
    report = folder / 'report.json'
    code = _load_tool('check_panoptic_dataset').main([
        '--json', f'{folder}/gt.json', '--pngs', f'{folder}/gt', '--images', f'{folder}/images', '--out',
        str(report)
    ])
    findings = json.loads(report.read_text())['findings']
    errors = [f'{found["file"]}: {found["message"]}' for found in findings if found['is_error']]
    if (code != 0) != bool(errors):
        raise RuntimeError(f'exit code {code} with {len(errors)} errors')
    return '; '.join(errors)


def run_training(folder: Path) -> None:
    """Load all images as training does."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = PanopticMapDataset(
            data_root=str(folder),
            ann_file='gt.json',
            data_prefix=dict(img='images', seg='gt'),
            pipeline=[LoadImageStrict(), LoadPanopticMap()])
        for index in range(len(dataset)):
            dataset[index]


def run_evaluation(folder: Path) -> None:
    """Compute the panoptic quality of the predictions."""
    _load_tool('eval_panoptic').main(['--gt-json', f'{folder}/gt.json', '--pred-json', f'{folder}/pred.json'])


RUN_STEP: Dict[str, Callable[[Path], Any]] = {
    CHECKER: run_checker,
    TRAINING: run_training,
    EVALUATION: run_evaluation
}


class OverTimeError(BaseException):
    """A step took longer than the limit; no step catches it."""


@contextlib.contextmanager
def _limits(seconds: int, memory: int) -> Iterator[None]:
    """Limit the time and the additional address space of a block; its output is not shown."""

    def stop(*_: Any) -> None:
        raise OverTimeError

    pages = int(Path('/proc/self/statm').read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, hard))
    signal.alarm(seconds)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, handler)


@lru_cache(maxsize=None)
def _original() -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory()
    write_dataset(Path(folder.name))
    return folder


def run_variant(variant: Variant, steps: Sequence[str] = STEPS, seconds: int = TIME_LIMIT) -> List[Result]:
    """Run the steps on a variant of the dataset, each with a time limit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, 'data')
        shutil.copytree(_original().name, folder)
        names = {path.name for path in folder.rglob('*.*')} | {str(folder)}
        variant.apply(folder)
        return [_run_step(variant, step, folder, names, seconds) for step in steps]


def _run_step(variant: Variant, step: str, folder: Path, names: Collection[str], seconds: int) -> Result:
    is_wrong = step in variant.refused_by
    try:
        with _limits(seconds, MEMORY_LIMIT):
            message = RUN_STEP[step](folder) or ''
        outcome = 'refused clearly' if message else 'silently accepted'
    except OverTimeError:
        return Result(variant.name, step, 'over time', f'more than {seconds} s')
    except (Exception, SystemExit) as error:
        message = f'{type(error).__name__}: {error}'
        is_clear = isinstance(error, (ValueError, OSError)) and any(name in str(error) for name in names)
        outcome = 'refused clearly' if is_clear else 'refused unclearly'
    if not is_wrong:
        outcome = 'accepted' if outcome == 'silently accepted' else 'false alarm'
    return Result(variant.name, step, outcome, message[:500])


def format_counts(results: Sequence[Result]) -> str:
    """A table: the number of outcomes of each step, and the percentages among the wrong variants."""
    lines = ['| step | wrong | ' + ' | '.join(OUTCOMES) + ' |', '|---' * (2 + len(OUTCOMES)) + '|']
    for step in [*STEPS, 'all']:
        counts = Counter(result.outcome for result in results if step in ('all', result.step))
        wrong = sum(counts[outcome] for outcome in OUTCOMES[:4])
        cells = [f'{counts[outcome]} ({counts[outcome] / max(wrong, 1):.1%})' for outcome in OUTCOMES[:4]]
        cells += [str(counts[outcome]) for outcome in OUTCOMES[4:]]
        lines.append(f'| {step} | {wrong} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--pattern', default='', help='regular expression of the names of the variants to run')
    parser.add_argument('--steps', nargs='+', choices=STEPS, default=STEPS)
    parser.add_argument('--list', action='store_true', help='only list the names')
    parser.add_argument('--out', type=Path, help='write all results to this JSON file')
    args = parser.parse_args()
    variants = [variant for variant in all_variants() if re.search(args.pattern, variant.name)]
    if args.list:
        print('\n'.join(variant.name for variant in variants))
        return
    start = time.time()
    results = []
    for variant in variants:
        found = run_variant(variant, args.steps)
        results += found
        for result in found:
            if args.pattern or result.outcome not in ('refused clearly', 'accepted'):
                print(
                    f'{result.outcome}: {result.variant} in {result.step}: {result.message[:200]}',
                    flush=True)
    print(f'\n{len(variants)} variants in {time.time() - start:.0f} s\n{format_counts(results)}')
    if args.out is not None:
        args.out.write_text(json.dumps([result._asdict() for result in results], indent=1))


if __name__ == '__main__':
    main()
