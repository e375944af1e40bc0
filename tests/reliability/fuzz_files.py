"""Variants of the files: not regular, damaged, of another size, or in another encoding."""
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import cv2
import numpy as np
from PIL import Image

from tests.reliability.fuzz_dataset import (DATASET, ONLY_EVALUATION, STEPS, Variant, change_bytes, cut,
                                            overwrite, write_png)


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
        yield Variant(f'photo/truncated/{percent}', change_bytes(file, cut(percent / 100)), DATASET)
    rng = np.random.default_rng(2)
    for percent in (35, 50, 65, 80):
        for name, new in (('zeros', bytes(200)), ('random', rng.bytes(200)), ('end-marker', b'\xff\xd9'),
                          ('start-marker', b'\xff\xd8')):
            change = overwrite(percent / 100, new)
            yield Variant(f'photo/damaged/{name}-{percent}', change_bytes(file, change), DATASET)
        yield Variant(
            f'photo/damaged/cut-out-{percent}',
            change_bytes(
                file, lambda whole, p=percent: cut(p / 100)(whole) + whole[len(whole) * p // 100 + 150:]),
            DATASET)
    for name, change in SIZE_CHANGES.items():
        yield Variant(f'photo/size/{name}', _resave(file, change), DATASET)
    for width, height in CLAIMED_SIZES:
        yield Variant(f'photo/claimed/{width}x{height}', change_bytes(file, _claim_jpeg_size(width, height)),
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
            'bytes-behind': change_bytes(file, lambda whole: whole + b'camera notes'),
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
            yield Variant(f'{start}/truncated/{percent}', change_bytes(file, cut(percent / 100)), steps)
        for percent in (20, 40, 60, 80):
            for name, new in (('zeros', bytes(8)), ('ones', b'\xff' * 8)):
                change = overwrite(percent / 100, new)
                yield Variant(f'{start}/damaged/{name}-{percent}', change_bytes(file, change), steps)
        for name, change in SIZE_CHANGES.items():
            yield Variant(f'{start}/size/{name}', _resave(file, change), steps)
        for width, height in CLAIMED_SIZES:
            yield Variant(f'{start}/claimed/{width}x{height}',
                          change_bytes(file, _claim_png_size(width, height)), steps)

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
                'bytes-behind': change_bytes(file, lambda whole: whole + b'notes'),
        }.items():
            yield Variant(f'{start}/encoding/{name}', apply, ())
