"""Images of all kinds become the same BGR pixels; a bad one is one clear error, and a download is bounded."""
import http.server
import io
import threading
import time

import cv2
import numpy as np
import PIL.Image
import pytest

from remax_mm.apis import list_images
from remax_mm.apis.input_images import download, image_name, load_image, to_bgr

RED, GREEN = (255, 0, 0), (0, 255, 0)  # RGB


@pytest.fixture
def bgr():
    """(2, 3, 3): the left column is red, the others are green."""
    image = np.zeros((2, 3, 3), np.uint8)
    image[:] = GREEN
    image[:, 0] = RED
    return np.ascontiguousarray(image[..., ::-1])


def _png(bgr):
    return cv2.imencode('.png', bgr)[1].tobytes()


class _Server(http.server.BaseHTTPRequestHandler):
    """Serves the answers of the test: path -> (status, headers, function that writes the body)."""
    answers: dict = {}

    def do_GET(self):
        status, headers, write = self.answers[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            write(self.wfile)
        except (BrokenPipeError, ConnectionResetError):  # the client has enough
            pass

    def log_message(self, *args):
        pass


@pytest.fixture
def server(bgr):

    def send_forever(file):
        while True:
            file.write(bytes(2**16))

    def send_slowly(file):
        for _ in range(100):
            file.write(b'.')
            file.flush()
            time.sleep(0.05)

    def send(content):
        return lambda file: file.write(content)

    _Server.answers = {
        '/cat%201.png': (200, {}, send(_png(bgr))),
        '/text': (200, {}, send(b'no image')),
        '/missing': (404, {}, send(b'')),
        '/endless': (200, {}, send_forever),
        '/slow': (200, {}, send_slowly),
        '/silent': (200, {}, lambda file: time.sleep(3)),
        '/moved': (302, {
            'Location': '/cat%201.png'
        }, send(b'')),
        '/file': (302, {
            'Location': 'file:///etc/passwd'
        }, send(b'')),
        '/ftp': (302, {
            'Location': 'ftp://127.0.0.1/a.png'
        }, send(b'')),
    }
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Server) as running:
        running.daemon_threads = running.block_on_close = False
        threading.Thread(target=running.serve_forever, args=(0.01, ), daemon=True).start()
        yield f'http://127.0.0.1:{running.server_port}'
        running.shutdown()


def test_to_bgr__arrays(bgr):
    np.testing.assert_array_equal(to_bgr(bgr), bgr)
    rgba = np.dstack([bgr[..., ::-1], np.full((2, 3), 7, np.uint8)])
    np.testing.assert_array_equal(to_bgr(rgba), bgr)
    gray = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for image in (gray, gray[..., None]):
        np.testing.assert_array_equal(to_bgr(image), np.dstack([gray] * 3))
    np.testing.assert_array_equal(to_bgr(bgr[:, ::-1]), bgr[:, ::-1])  # any strides


def test_to_bgr__pil_images(bgr):
    image = PIL.Image.fromarray(np.ascontiguousarray(bgr[..., ::-1]))
    for mode in ('RGB', 'RGBA', 'P', 'RGBX'):
        np.testing.assert_array_equal(to_bgr(image.convert(mode)), bgr)
    np.testing.assert_array_equal(to_bgr(PIL.Image.new('L', (3, 2), 9)), np.full((2, 3, 3), 9))
    np.testing.assert_array_equal(to_bgr(PIL.Image.new('1', (3, 2), 1)), np.full((2, 3, 3), 255))


def test_load_image__a_rotated_photo_is_the_same_from_file_and_pil(tmp_path, bgr):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    PIL.Image.fromarray(np.ascontiguousarray(bgr[..., ::-1])).save(tmp_path / 'a.png', exif=exif)
    with PIL.Image.open(tmp_path / 'a.png') as image:
        turned = to_bgr(image)
    np.testing.assert_array_equal(turned, np.rot90(bgr, -1))
    np.testing.assert_array_equal(load_image(tmp_path / 'a.png'), turned)


@pytest.mark.parametrize('image, error, message', [
    (np.zeros((2, 3, 3)), TypeError, 'uint8 .* float64'),
    (np.zeros((2, 3, 3), bool), TypeError, 'uint8 .* bool'),
    (np.zeros((2, 3, 2), np.uint8), ValueError, r'\(2, 3, 2\)'),
    (np.zeros((1, 2, 3, 3), np.uint8), ValueError, r'\(1, 2, 3, 3\)'),
    (np.zeros(3, np.uint8), ValueError, r'\(3,\)'),
    (np.zeros((0, 3, 3), np.uint8), ValueError, r'\(0, 3, 3\)'),
    (PIL.Image.new('I;16', (3, 2)), TypeError, 'I;16'),
    (PIL.Image.new('F', (3, 2)), TypeError, 'mode F'),
])
def test_to_bgr__bad_images(image, error, message):
    with pytest.raises(error, match=message):
        to_bgr(image)


def test_list_images__all_kinds(tmp_path, bgr):
    (tmp_path / 'a.png').write_bytes(_png(bgr))
    pil = PIL.Image.new('L', (1, 1))
    url = 'https://example.org/b.jpg'
    assert list_images(url) == [url] and list_images(pil) == [pil]
    found = list_images([tmp_path, url, (pil, bgr)])
    assert found[:3] == [tmp_path / 'a.png', url, pil] and found[3] is bgr
    for wrong in (7, None, {'a.png': 1}, io.BytesIO()):
        with pytest.raises(TypeError, match=type(wrong).__name__):
            list_images([wrong])
    with pytest.raises(FileNotFoundError, match='ftp://'):
        list_images('ftp://example.org/a.png')


def test_image_name__of_paths_and_urls():
    assert image_name('a/b.c.jpg') == 'b.c'
    assert image_name('http://host/a/b%201.jpg?size=9/9#x') == 'b 1'
    assert '/' not in image_name('http://host/a/..%2f..%2fetc%2fpasswd.png')


def test_load_image__url(server, bgr):
    for path in ('cat%201.png', 'moved'):
        np.testing.assert_array_equal(load_image(f'{server}/{path}'), bgr)
    with pytest.raises(ValueError, match=f'{server}/text cannot be decoded'):
        load_image(f'{server}/text')
    with pytest.raises(OSError, match=f'{server}/missing, .*404'):
        load_image(f'{server}/missing')


def test_download__limits(server):
    with pytest.raises(OSError, match=f'at most 200000 bytes at {server}/endless'):
        download(f'{server}/endless', max_bytes=200000)
    start = time.monotonic()
    with pytest.raises(OSError, match=f'{server}/slow within 0.2 s'):
        download(f'{server}/slow', seconds=0.2)
    with pytest.raises(OSError, match=f'{server}/silent'):
        download(f'{server}/silent', seconds=0.2)
    assert time.monotonic() - start < 2.5  # less than either answer takes


@pytest.mark.parametrize('path, message', [('file', 'download failed: .*file:.* is not allowed'),
                                           ('ftp', 'to http or https, but got ftp:')])
def test_download__redirects_lead_to_the_web_only(server, path, message):
    with pytest.raises(OSError, match=f'{server}/{path}.* {message}'):
        download(f'{server}/{path}')


def test_download__no_server():
    with pytest.raises(OSError, match='http://127.0.0.1:9/a.png, but the download failed'):
        download('http://127.0.0.1:9/a.png', seconds=1)
