"""The web page: no request reads a file of the machine, and the page works in a real Chromium."""
import functools
import http.server
import io
import json
import os
import runpy
import shutil
import socket
import threading
import uuid
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from remax_mm.panoptic_format import read_segment_ids
from tests.color_inferencer import color_inferencer
from tests.color_model import CAT, CAT_2, GRASS, SKY, paint
from tests.conftest import REPOSITORY

gradio = pytest.importorskip('gradio', reason="the web page needs gradio, `pip install 'remax_mm[web]'`")
httpx = pytest.importorskip('httpx')
pytestmark = pytest.mark.slow

S = slice
PAINTING = paint((40, 60), (SKY, S(0, 20), S(None)), (GRASS, S(20, None), S(None)),
                 (CAT, S(10, 30), S(5, 15)), (CAT_2, S(10, 30), S(40, 44)))
SECRET = 'the content of a file of this machine'


@pytest.fixture(scope='module')
def page():
    from remax_mm.apis.web_page import Limits, WebPage
    page = WebPage(color_inferencer(), Limits(num_bytes=2**20, num_pixels=10**6))
    page.url = page.launch(block=False).rstrip('/')
    yield page
    page.close()


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp('photos') / 'two cats.png'
    PIL.Image.fromarray(np.ascontiguousarray(PAINTING[..., ::-1])).save(path)
    return path


# ---- requests


def _call(page, function, data):
    """Call a function of the page as a browser would, and return all that the server answers."""
    config = httpx.get(f'{page.url}/config').json()
    index, = [
        entry['id'] for entry in config['dependencies']
        if len(entry['inputs']) == len(data) and entry['backend_fn'] and function in entry['targets'][0]
    ][:1]
    session = uuid.uuid4().hex
    joined = httpx.post(
        f'{page.url}/gradio_api/queue/join', json=dict(data=data, fn_index=index, session_hash=session))
    assert joined.status_code == 200, joined.text
    with httpx.stream(
            'GET', f'{page.url}/gradio_api/queue/data?session_hash={session}', timeout=60) as stream:
        lines = [line for line in stream.iter_lines() if line.startswith('data:')]
    messages = [json.loads(line[5:]) for line in lines]
    return next(message for message in messages if message['msg'] == 'process_completed')


def _upload(page, path):
    with path.open('rb') as file:
        answer = httpx.post(f'{page.url}/gradio_api/upload', files=dict(files=(path.name, file)))
    return answer.json()[0]


def _file(path, **entries):
    return dict(path=str(path), meta=dict(_type='gradio.FileData'), **entries)


def test_page__segments_an_upload(page, photo):
    done = _call(page, 'then', [_file(_upload(page, photo))])
    assert done['success'], done
    names = [name for _, name in done['output']['data'][1]['choices']]
    assert sorted(names) == ['cat', 'grass', 'sky']


def test_page__listens_on_this_machine_only(page):
    assert page.url.startswith('http://127.0.0.1:')
    port = int(page.url.rsplit(':', 1)[1])
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in addresses - {'127.0.0.1', '127.0.1.1'}:
        with pytest.raises(OSError):
            socket.create_connection((address, port), timeout=2).close()


@pytest.fixture
def secrets(tmp_path, photo, page, monkeypatch):
    """Files outside of the page: a text and a photo in the working directory, and one elsewhere."""
    monkeypatch.chdir(tmp_path)
    files = [tmp_path / 'secret.txt', tmp_path / 'secret.png', REPOSITORY / 'setup.cfg']
    files[0].write_text(SECRET)
    shutil.copy(photo, files[1])
    return files


@pytest.mark.parametrize('route', [
    'gradio_api/file={path}', 'gradio_api/file/{path}', 'file={path}', 'file/{path}',
    'gradio_api/file={name}', 'gradio_api/file=./{name}',
    'gradio_api/file={upload}/../../../../../../../../..{path}',
    'gradio_api/file={upload}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e{path}',
    'gradio_api/file=file://{path}', 'gradio_api/file=%2f%2f{path}',
    'static/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..{path}',
    'assets/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..{path}', 'gradio_api/proxy=file://{path}',
    'gradio_api/stream/{path}', 'gradio_api/upload?path={path}',
    '..%2f..%2f..%2f..%2f..%2f..%2f..%2f..{path}', 'custom_component/x/client/component/..%2f..%2f..{path}',
    'theme/..%2f..%2f..{path}', 'gradio_api/deep_link={path}'
])
def test_page__no_route_serves_a_file_of_the_machine(route, page, photo, secrets):
    upload = str(_upload(page, photo)).rsplit('/', 1)[0]
    for secret in secrets:
        content = secret.read_bytes()
        url = f'{page.url}/{route.format(path=secret, name=secret.name, upload=upload)}'
        # httpx would remove `..`, as browsers do.
        host, port = page.url[len('http://'):].split(':')
        with socket.create_connection((host, int(port))) as connection:
            target = url[len(page.url):]
            connection.sendall(f'GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n'.encode())
            answer = b''.join(iter(functools.partial(connection.recv, 2**16), b''))
        assert b'HTTP/1.1 ' in answer and content not in answer


def test_page__its_own_uploads_are_served(page, photo):
    # The test above could pass because of a wrong route.
    answer = httpx.get(f'{page.url}/gradio_api/file={_upload(page, photo)}')
    assert answer.status_code == 200 and answer.content == photo.read_bytes()


def test_page__segments_no_file_of_the_machine(page, photo, secrets):
    upload = str(_upload(page, photo)).rsplit('/', 1)[0]
    for path in (secrets[1], secrets[1].name, f'{upload}/../../../../../../..{secrets[1]}',
                 f'file://{secrets[1]}'):
        done = _call(page, 'then', [_file(path)])
        assert not done['success'] and 'choices' not in json.dumps(done), path
        done = _call(page, 'then', [_file(path, url=f'{page.url}/gradio_api/file={path}', orig_name='a.png')])
        assert not done['success'], path


def test_page__downloads_nothing_for_a_visitor(page, photo):
    requested = []

    class Server(http.server.SimpleHTTPRequestHandler):

        def do_GET(self):
            requested.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}/a.png'
        for data in (_file(url), _file(url, url=url), _file('a.png', url=url)):
            assert not _call(page, 'then', [data])['success']
        httpx.get(f'{page.url}/gradio_api/proxy={url}')
        server.shutdown()
    assert requested == []


def test_page__a_visitor_cannot_send_the_state(page, secrets):
    # A photo that the server did not segment, whose folder would be written to.
    state = dict(name='../secret', image=[[0]], result=None, folder=str(secrets[0].parent))
    before = sorted(secrets[0].parent.iterdir())
    done = _call(page, 'input', [state, [], 0.5, 0., 0.])
    assert done['success'] and done['output']['data'][0] is None
    assert sorted(secrets[0].parent.iterdir()) == before


def test_page__limits_of_an_upload(page, tmp_path):
    (tmp_path / 'large.png').write_bytes(bytes(2**20 + 1))
    with (tmp_path / 'large.png').open('rb') as file:
        answer = httpx.post(f'{page.url}/gradio_api/upload', files=dict(files=file))
    assert answer.status_code == 413
    PIL.Image.new('1', (2000, 1000)).save(tmp_path / 'pixels.png')
    done = _call(page, 'then', [_file(_upload(page, tmp_path / 'pixels.png'))])
    assert not done['success'] and 'at most 1000000 pixels' in done['output']['error']


def test_page__tells_nothing_about_the_machine(page):
    config = httpx.get(f'{page.url}/config').text
    assert str(REPOSITORY) not in config and page.folder not in config
    info = httpx.get(f'{page.url}/gradio_api/info').json()
    assert not info['named_endpoints'] and not info['unnamed_endpoints']


def test_page__photos_and_results_are_deleted(page, photo, monkeypatch):
    monkeypatch.setenv('GRADIO_TEMP_DIR', os.environ['GRADIO_TEMP_DIR'])  # restored for the other page
    from remax_mm.apis.web_page import Photo, WebPage
    done = WebPage(page.inferencer)
    folder = Path(done.folder)
    path = folder / 'upload.png'
    shutil.copy(photo, path)
    segmented, _ = done._segment(str(path))
    done._show(segmented, ['cat'], 0.5, 0., 0.)
    assert isinstance(segmented, Photo) and len(list(Path(segmented.folder).iterdir())) == 3
    done._clear(segmented)  # another photo, or none
    assert not Path(segmented.folder).exists() and folder.exists()
    done.close()
    assert not folder.exists()


def test_demo__arguments(tmp_path, monkeypatch):
    main = runpy.run_path(str(REPOSITORY / 'demo' / 'web_demo.py'))['main']
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
            SystemExit, match='error: Expected a finished training in work_dirs/demo, .*make demo'):
        main([])

    # Without arguments, the model of the demo.
    color, demo = color_inferencer(), tmp_path / 'work_dirs' / 'demo'
    demo.mkdir(parents=True)
    color.config.dump(demo / 'color.py')
    torch.save(dict(state_dict=color.model.state_dict()), demo / 'iter_1.pth')
    (demo / 'last_checkpoint').write_text(str(demo / 'iter_1.pth'))
    started = []

    class Page:

        def __init__(self, inferencer, limits, min_score):
            started.extend([tuple(inferencer.classes), limits, min_score])

        def launch(self, host, port):
            started.extend([host, port])
            raise KeyboardInterrupt

        def close(self):
            started.append('closed')

    monkeypatch.setattr('remax_mm.apis.web_page.WebPage', Page)
    with pytest.raises(KeyboardInterrupt):
        main(['--max-megabytes', '0.5', '--seconds', '7', '--pred-score-thr', '0.3'])
    classes, limits, *others = started
    assert classes == ('cat', 'dog', 'sky', 'grass')
    assert (limits.num_bytes, limits.num_pixels, limits.seconds) == (2**19, 50_000_000, 7)
    assert others == [0.3, '127.0.0.1', None, 'closed']


# ---- a browser


@pytest.fixture(scope='module')
def browser():
    webdriver = pytest.importorskip('selenium.webdriver', reason='the test in a browser needs selenium')
    chromium, driver = shutil.which('chromium'), shutil.which('chromedriver')
    if not (chromium and driver):
        pytest.skip(
            'the test in a browser needs chromium and chromedriver (Debian: chromium chromium-driver)')
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--window-size=1360,1000'):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', dict(browser='ALL', performance='ALL'))
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def opened(browser, page):
    """The page in the browser, and a function that waits for a value that is not empty.

    The page may replace an element while it is read; the function then tries again.
    """
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait
    browser.get(page.url)

    def wait(condition):
        wait = WebDriverWait(browser, 60, ignored_exceptions=[StaleElementReferenceException])
        return wait.until(lambda _: condition())

    browser.wait = wait
    wait(lambda: _find(browser, '#photo input[type=file]'))
    return browser


def _find(browser, selector):
    return browser.find_elements('css selector', selector)


def _drop(browser, path):
    browser.wait(lambda: [field.send_keys(str(path)) for field in _find(browser, '#photo input[type=file]')])


def _rows(browser):
    """Cells of the table of segments."""
    rows = browser.execute_script(
        "return [...document.querySelectorAll('#segments [role=row]')].map("
        "row => [...row.querySelectorAll('[role=gridcell]')].map(cell => cell.innerText.trim()))")
    return sorted({tuple(row) for row in rows if any(row)})


def _picture(browser):
    """Pixels of the overlay, None without one."""
    images = _find(browser, '#overlay img')
    if not images:
        return None
    return np.asarray(
        PIL.Image.open(io.BytesIO(httpx.get(images[0].get_attribute('src')).content)).convert('RGB'))


def _set(browser, control, value):
    """Type the value of a slider."""
    from selenium.webdriver.common.keys import Keys
    field = _find(browser, f'#{control} input[type=number]')[0]
    field.send_keys(Keys.CONTROL, 'a')
    field.send_keys(str(value), Keys.ENTER)


def test_browser__a_photo_gets_its_segments(opened, photo, tmp_path):
    _drop(opened, photo)
    opened.wait(lambda: len(_rows(opened)) == 4)
    assert sorted(row[1:3] for row in _rows(opened)) == [('cat', 'thing'), ('cat', 'thing'),
                                                         ('grass', 'stuff'), ('sky', 'stuff')]
    rgb = PAINTING[..., ::-1]
    picture = opened.wait(lambda: (found := _picture(opened)) is not None and [found])[0]
    assert picture.shape[0] * 60 == picture.shape[1] * 40 and picture.std() > 10

    # Classes, thresholds and opacity act at once.
    next(label for label in _find(opened, '#classes label') if 'cat (2)' in label.text).click()
    opened.wait(lambda: len(_rows(opened)) == 2)
    next(label for label in _find(opened, '#classes label') if 'cat (2)' in label.text).click()
    opened.wait(lambda: len(_rows(opened)) == 4)
    _set(opened, 'area', 5)
    opened.wait(lambda: len(_rows(opened)) == 3)
    _set(opened, 'score', 1)
    opened.wait(lambda: len(_rows(opened)) == 0)
    # Nothing is left that could be drawn, but the photo.
    _set(opened, 'area', 0)
    _set(opened, 'opacity', 0)
    _set(opened, 'score', 0)
    opened.wait(lambda: len(_rows(opened)) == 4)
    height, width = 2, 57  # a corner of the sky, far from names and borders
    pixel = opened.wait(lambda: [
        color
        for color in [_picture(opened)[height * picture.shape[0] // 40, width * picture.shape[1] // 60]]
        if (color == rgb[height, width]).all()
    ])[0]
    assert tuple(pixel) == SKY.rgb

    # The files for download.
    described = json.loads(_download(opened, 'json', tmp_path / 'two cats.json'))
    assert sorted(segment['class_name']
                  for segment in described['segments_info']) == ['cat', 'cat', 'grass', 'sky']
    assert (described['height'], described['width']) == (40, 60)
    _download(opened, 'ids', tmp_path / 'two cats_panoptic.png')
    assert len(np.unique(read_segment_ids(tmp_path / 'two cats_panoptic.png'))) == 4
    _download(opened, 'overlay', tmp_path / 'two cats_overlay.png')
    np.testing.assert_array_equal(
        np.asarray(PIL.Image.open(tmp_path / 'two cats_overlay.png').convert('RGB')), _picture(opened))


def _download(browser, kind, path):
    """Click a button, and return the content of the file that the browser saves."""
    browser.execute_cdp_cmd('Browser.setDownloadBehavior',
                            dict(behavior='allow', downloadPath=str(path.parent)))
    _find(browser, f'#download-{kind}')[0].click()
    return browser.wait(lambda: path.is_file() and path.read_bytes())


def test_browser__a_broken_file_gives_a_message(opened, photo, tmp_path):
    _drop(opened, photo)
    opened.wait(lambda: len(_rows(opened)) == 4)
    _find(opened,
          '#photo button[aria-label="Clear"], #photo button[aria-label="Remove this file"]')[0].click()
    opened.wait(lambda: _picture(opened) is None)

    broken = tmp_path / '<img id=hostile src=x>.png'
    broken.write_bytes(photo.read_bytes()[:80])
    opened.wait(lambda: _find(opened, '#photo input[type=file]'))
    _drop(opened, broken)
    message = opened.wait(lambda: [toast.text for toast in _find(opened, '.toast-body')])[0]
    assert 'Expected an image, but' in message and 'cannot be decoded' in message
    assert not _find(opened, '#hostile')  # the name is text
    assert _picture(opened) is None and not _rows(opened)

    # The page still works.
    _find(opened,
          '#photo button[aria-label="Clear"], #photo button[aria-label="Remove this file"]')[0].click()
    opened.wait(lambda: _find(opened, '#photo input[type=file]'))
    _drop(opened, photo)
    opened.wait(lambda: len(_rows(opened)) == 4)


def test_browser__asks_no_other_server(opened, page):
    events = [json.loads(entry['message'])['message'] for entry in opened.get_log('performance')]
    urls = {
        event['params']['request']['url']
        for event in events if event['method'] == 'Network.requestWillBeSent'
    }
    assert f'{page.url}/' in urls
    assert not [url for url in urls if not url.startswith((page.url, 'data:', 'blob:', 'chrome'))]
    assert not [entry for entry in opened.get_log('browser') if entry['level'] == 'SEVERE']
