"""Hostile, damaged and unusual image files: one clear error without much memory, or correct pixels."""
import io
import json
import os
import resource
import struct
import zlib

import cv2
import numpy as np
import pytest
from mmengine import fileio
from PIL import Image

from remax_mm.datasets import LoadImageStrict, LoadPanopticMap, PanopticMapDataset
from remax_mm.panoptic_format import BrokenFileError, read_image, read_segment_ids, write_segment_ids
from remax_mm.panoptic_format.image_files import decode_image, read_header


def _picture(height=60, width=90):
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    return cv2.resize(noise, (width, height))


def _encode(format='JPEG', mode='RGB', **options):
    file = io.BytesIO()
    Image.fromarray(_picture()).convert(mode).save(file, format, **options)
    return file.getvalue()


def _decode_with_opencv(content):
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize('format', ['JPEG', 'PNG', 'TIFF', 'WEBP'])
@pytest.mark.parametrize('orientation', range(10))  # 1 to 8 are valid
def test_decode_image__rotated_like_opencv(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = _encode(format, exif=exif)
    expected = _decode_with_opencv(content)
    assert np.array_equal(decode_image(content, 'a'), expected)
    assert read_header(content, 'a').size == expected.shape[:2]


@pytest.mark.parametrize('format, mode, options', [
    ('JPEG', 'L', dict()),
    ('JPEG', 'CMYK', dict()),
    ('JPEG', 'RGB', dict(progressive=True)),
    ('JPEG', 'RGB', dict(quality=20, subsampling=2)),
    ('JPEG', 'RGB', dict(quality=100, subsampling=0)),
    ('JPEG', 'RGB', dict(restart_marker_blocks=1)),
    ('MPO', 'RGB', dict()),
    ('PNG', 'P', dict()),
    ('PNG', 'RGBA', dict()),
    ('BMP', 'RGB', dict()),
    ('PPM', 'RGB', dict()),
])
def test_decode_image__pixels_of_opencv(format, mode, options):
    content = _encode(format, mode, **options)
    assert np.array_equal(decode_image(content, 'a'), _decode_with_opencv(content))


@pytest.mark.parametrize('size', [(1, 1), (1, 3000), (3000, 1), (2, 1), (17, 1)])
@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_read_image__one_pixel_and_long_images(tmp_path, size, suffix):
    path = str(tmp_path / f'a{suffix}')
    cv2.imwrite(path, _picture(*size))
    assert np.array_equal(read_image(path, size=size), cv2.imread(path))


def _claim_png(width, height):
    content = _encode('PNG')
    header = struct.pack('>II', width, height) + content[24:29]
    return content[:16] + header + struct.pack('>I', zlib.crc32(b'IHDR' + header)) + content[33:]


def _claim_jpeg(width, height):
    content = _encode()
    frame = content.index(b'\xff\xc0') + 5
    return content[:frame] + struct.pack('>HH', height, width) + content[frame + 4:]


@pytest.mark.parametrize('claim', [_claim_png, _claim_jpeg])
def test_decode_image__claimed_size(claim):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BrokenFileError, match='a.jpg .*900000000 pixels'):
        decode_image(claim(30000, 30000), 'a.jpg')
    with pytest.raises(ValueError, match=r'a.jpg to have the size \(60, 90\).*, but it is \(13000, 13000\)'):
        decode_image(claim(13000, 13000), 'a.jpg', size=(60, 90))
    assert resource.getrusage(
        resource.RUSAGE_SELF).ru_maxrss - before < 50000  # KB; 13000^2 x 3 bytes are 500000


@pytest.mark.parametrize('fraction', [.5, .7, .9])
def test_decode_image__damaged_middle_of_a_jpeg(fraction, capfd):
    content = _encode(quality=95)
    start = int(fraction * len(content))
    damaged = content[:start] + b'\xff\xd9' + content[start + 2:]
    assert _decode_with_opencv(damaged) is not None  # with gray pixels
    assert 'Corrupt JPEG' in capfd.readouterr().err
    with pytest.raises(BrokenFileError, match='an intact JPEG, but a.jpg is damaged: '):
        decode_image(damaged, 'a.jpg')


def _make(path, kind):
    if kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'folder':
        path.mkdir()
    elif kind == 'device':
        path.symlink_to('/dev/zero')
    else:
        with path.open('wb') as file:
            file.truncate(2**40)


@pytest.mark.parametrize('kind, message', [('fifo', 'not a regular file'), ('folder', 'not a regular file'),
                                           ('device', 'not a regular file'), ('sparse', '1099511627776')])
@pytest.mark.parametrize('read', [read_image, read_segment_ids])
def test_read__only_regular_files(tmp_path, kind, message, read):
    path = tmp_path / 'a.png'
    _make(path, kind)
    with pytest.raises(BrokenFileError, match=f'a.png.*{message}'):
        read(str(path))


def test_read_image__other_storage_than_the_disk(tmp_path):

    class MemoryBackend(fileio.BaseStorageBackend):

        def get(self, filepath):
            return _encode('PNG')

        def get_text(self, filepath):
            raise NotImplementedError

    fileio.register_backend('memory_of_test', MemoryBackend, prefixes='memory', force=True)
    assert np.array_equal(read_image('memory://nowhere/a.png')[..., ::-1], _picture())


@pytest.mark.parametrize('mode, message', [('L', 'color type 0 with 8 bits'),
                                           ('LA', 'color type 4 with 8 bits'),
                                           ('1', 'color type 0 with 1 bits'),
                                           ('I;16', 'color type 0 with 16 bits')])
def test_read_segment_ids__png_without_colors(tmp_path, mode, message):
    image = Image.fromarray(_picture()).convert('L')
    (Image.fromarray(np.asarray(image).astype(np.uint16)) if mode == 'I;16' else image.convert(mode)).save(
        tmp_path / 'a.png')
    with pytest.raises(BrokenFileError, match=f'a.png has the {message}'):
        read_segment_ids(str(tmp_path / 'a.png'))


def test_read_segment_ids__16_bits(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((4, 4, 3), 257, np.uint16))
    with pytest.raises(BrokenFileError, match='color type 2 with 16 bits'):
        read_segment_ids(str(tmp_path / 'a.png'))


@pytest.mark.parametrize('mode', ['P', 'RGBA'])
def test_read_segment_ids__same_colors_in_another_mode(tmp_path, mode):
    ids = np.arange(12).reshape(3, 4) * 70001
    write_segment_ids(tmp_path / 'a.png', ids)
    with Image.open(tmp_path / 'a.png') as image:
        other = image.quantize(dither=Image.Dither.NONE) if mode == 'P' else image.convert(mode)
    other.save(tmp_path / 'b.png')
    assert np.array_equal(read_segment_ids(str(tmp_path / 'b.png')), ids)


def test_dataset__transform_error_names_the_photo(tmp_path):
    for folder in ('images', 'png'):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / 'images' / 'a.png'), _picture(1, 3000))
    write_segment_ids(tmp_path / 'png' / 'a.png', np.ones((1, 3000), int))
    content = dict(
        images=[dict(id=1, file_name='a.png', height=1, width=3000)],
        annotations=[dict(image_id=1, segments_info=[dict(id=1, category_id=1)])],
        categories=[dict(id=1, name='a', isthing=0)])
    (tmp_path / 'a.json').write_text(json.dumps(content))

    def fail(results):
        cv2.resize(results['img'], (64, 0))

    dataset = PanopticMapDataset(
        data_root=str(tmp_path),
        ann_file='a.json',
        data_prefix=dict(img='images', seg='png'),
        pipeline=[LoadImageStrict(), LoadPanopticMap(), fail])
    with pytest.raises(RuntimeError, match=f'Cannot prepare {tmp_path}/images/a.png: error: '):
        dataset[0]
