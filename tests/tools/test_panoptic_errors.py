import json
import runpy
from pathlib import Path

import mmcv
import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.panoptic_cases import NUM_CLASSES, Case, perfect_case, random_case, write_panoptic_files

MAIN = runpy.run_path(str(REPOSITORY / 'tools' / 'analysis_tools' / 'panoptic_errors.py'))['main']


@pytest.fixture
def options(tmp_path):
    """Options for three images of 24 x 24 pixels: with errors, without errors, and without segments."""
    rng = np.random.default_rng(0)
    nothing = Case(np.full((24, 24), NUM_CLASSES), np.zeros((24, 24), int), [])
    paths = write_panoptic_files(tmp_path, [random_case(rng, 24), perfect_case(rng, 'mixed'), nothing])
    for number in range(3):
        mmcv.imwrite(
            np.full((24, 24, 3), 80 * number, np.uint8), str(tmp_path / 'photos' / f'{number:06d}.jpg'))
    return [text for name, path in paths.items() for text in (f'--{name.replace("_", "-")}', str(path))]


def test_panoptic_errors__report_and_pictures(options, tmp_path, capsys):
    out = tmp_path / 'out'
    MAIN([*options, '--img-folder', str(tmp_path / 'photos'), '--out-dir', str(out), '--worst', '5'])
    report = json.loads((out / 'errors.json').read_text())
    assert [image['id'] for image in report['images']] == [0, 1]
    assert report['images'][0]['errors'] and not report['images'][1]['errors']
    assert report['images'][1]['PQ'] == 100
    assert (out / 'errors.txt').read_text() in capsys.readouterr().out

    assert sorted(path.name for path in (out / 'worst').iterdir()) == ['001_000000.png', '002_000001.png']
    picture = mmcv.imread(str(out / 'worst' / '002_000001.png'))[-384:]  # 16 times as large
    photo, annotated, predicted = picture[:, :384], picture[:, 388:772], picture[:, 776:]
    assert abs(photo.astype(int) - 80).max() < 3 and (annotated == predicted).mean() > 0.5
    assert (annotated != photo).any()


def test_panoptic_errors__without_photos_and_in_processes(options, tmp_path):
    MAIN([*options, '--out-dir', str(tmp_path / 'out'), '--worst', '1', '--processes', '2'])
    picture = mmcv.imread(str(tmp_path / 'out' / 'worst' / '001_000000.png'))
    assert (picture[-384:, :384] == 128).all()


def test_panoptic_errors__dataset_class_with_photo_names(options, tmp_path):
    """Cityscapes, whose JSON has other file names than its photos."""
    for option in ('--gt-json', '--pred-json'):
        path = Path(options[options.index(option) + 1])
        content = json.loads(path.read_text())
        for entries, key in ((content.get('images', []), 'id'), (content['annotations'], 'image_id')):
            for entry in entries:
                entry[key] = f'ulm_000000_{entry[key]:06d}'
        path.write_text(json.dumps(content))
    for number in range(3):
        photo = tmp_path / 'photos' / 'ulm' / f'ulm_000000_{number:06d}_leftImg8bit.png'
        mmcv.imwrite(np.full((24, 24, 3), 80 * number, np.uint8), str(photo))
    MAIN([
        *options, '--img-folder',
        str(tmp_path / 'photos'), '--out-dir',
        str(tmp_path / 'out'), '--dataset-type', 'CityscapesPanopticMapDataset'
    ])
    picture = mmcv.imread(str(tmp_path / 'out' / 'worst' / '002_000001.png'))
    assert (picture[-384:, :384] == 80).all()


def test_panoptic_errors__bad_input(options, tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere/000000.jpg'):
        MAIN([*options, '--img-folder', str(tmp_path / 'nowhere'), '--out-dir', str(tmp_path / 'out')])
    assert (tmp_path / 'out' / 'errors.json').is_file()  # written before the error
    with pytest.raises(FileExistsError, match='out'):
        MAIN([*options, '--out-dir', str(tmp_path / 'out')])
    mmcv.imwrite(np.zeros((20, 24, 3), np.uint8), str(tmp_path / 'photos' / '000000.jpg'))
    with pytest.raises(ValueError, match=r'000000.jpg.*\(24, 24\).*\(20, 24\)'):
        MAIN([*options, '--img-folder', str(tmp_path / 'photos'), '--out-dir', str(tmp_path / 'other')])


def test_panoptic_errors__unlisted_ids(options, tmp_path):
    path = options[options.index('--gt-json') + 1]
    with open(path) as file:
        content = json.load(file)
    content['annotations'][1]['segments_info'].pop()  # of the image without an error
    with open(path, 'w') as file:
        json.dump(content, file)
    with pytest.raises(ValueError, match='the list lacks the ids'):
        MAIN([*options, '--out-dir', str(tmp_path / 'strict')])
    MAIN([*options, '--out-dir', str(tmp_path / 'out'), '--allow-unlisted-ids'])
    report = json.loads((tmp_path / 'out' / 'errors.json').read_text())
    errors, = (image['errors'] for image in report['images'] if image['id'] == 1)
    assert [(error['kind'], error['annotated']) for error in errors] == [('hallucinated', False)]


def test_panoptic_errors__photo_without_entry(options, tmp_path):
    path = options[options.index('--gt-json') + 1]
    with open(path) as file:
        content = json.load(file)
    content['images'] = content['images'][1:]
    with open(path, 'w') as file:
        json.dump(content, file)
    with pytest.raises(ValueError, match=r'image 0, whose annotation is .*000000\.png, among the `images`'):
        MAIN([*options, '--img-folder', str(tmp_path / 'photos'), '--out-dir', str(tmp_path / 'out')])
