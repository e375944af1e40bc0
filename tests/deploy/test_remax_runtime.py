"""The program of a deployed folder, with a model made by hand."""
import json
import subprocess
import sys

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

from remax_mm.deploy import remax_runtime
from remax_mm.deploy.remax_runtime import (ModelFileError, PanopticModel, load_image, main, resize_bilinear,
                                           resized_size)
from remax_mm.panoptic_format import read_segment_ids

pytest.importorskip('onnx', reason='needs the extra onnx')
pytest.importorskip('onnxruntime', reason='needs the extra onnx')
from tests.deploy.color_onnx import color_image, write_color_model  # noqa: E402


@pytest.mark.parametrize('old, new', [((48, 64), (49, 65)), ((48, 64), (24, 32)), ((33, 50), (85, 129)),
                                      ((100, 75), (43, 32)), ((50, 33), (50, 61)), ((1, 7), (5, 3))])
def test_resize_bilinear__is_that_of_opencv(old, new):
    image = np.random.randint(0, 256, (*old, 3), dtype=np.uint8)
    expected = cv2.resize(image, new[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize_bilinear(image, *new), expected)


@pytest.mark.parametrize('size', [(480, 640), (640, 427), (100, 33), (641, 641)])
@pytest.mark.parametrize('scale', [(641, 641), (2049, 1025), (1333, 800)])
def test_resized_size__is_that_of_mmcv(size, scale):
    assert resized_size(size, scale, True)[::-1] == mmcv.rescale_size(size[::-1], scale)
    assert resized_size(size, scale, False)[::-1] == scale


@pytest.mark.parametrize('mode', ['RGB', 'L', 'RGBA', 'P', 'I;16', 'CMYK'])
def test_load_image__as_opencv(mode, tmp_path):
    path = tmp_path / ('image.jpg' if mode == 'CMYK' else 'image.png')
    values = np.random.randint(0, 256, (9, 12, 4), dtype=np.uint8)
    if mode == 'I;16':
        Image.fromarray(values[..., 0].astype(np.uint16) * 256 + 7).save(path)
    elif mode == 'CMYK':
        Image.fromarray(np.full((16, 16, 4), 40, dtype=np.uint8), 'CMYK').save(path)
    else:
        Image.fromarray(values[..., :3]).convert(mode).save(path)
        if mode == 'RGBA':
            Image.fromarray(values).save(path)
    expected = mmcv.imread(str(path))[..., ::-1].astype(int)
    # Pillow and OpenCV convert CMYK by other formulas.
    assert np.abs(load_image(path).astype(int) - expected).max() <= (3 if mode == 'CMYK' else 0)


def test_load_image__turns_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(color_image()).save(tmp_path / 'image.jpg', exif=exif, quality=95)
    image = load_image(tmp_path / 'image.jpg')
    assert image.shape == (60, 40, 3)
    np.testing.assert_array_equal(image, mmcv.imread(str(tmp_path / 'image.jpg'))[..., ::-1])


@pytest.mark.parametrize(
    'array', [np.zeros(
        (4, 5), np.uint8), np.zeros((4, 5, 4), np.uint8),
              np.zeros((4, 5, 3))])
def test_load_image__other_arrays(array):
    with pytest.raises(ValueError, match=r'Expected an image \(height, width, 3\) of uint8'):
        load_image(array)


def test_call__segments(tmp_path):
    model = PanopticModel(write_color_model(tmp_path / 'model.onnx'))
    result = model(color_image())
    assert [(s['class_name'], s['is_thing'], s['area'], s['bbox'])
            for s in result.segments_info] == [('sky', False, 1050, (0, 0, 60, 20)),
                                               ('grass', False, 1200, (0, 20, 60, 20)),
                                               ('cat', True, 150, (15, 10, 15, 10))]
    assert result.segment_map[0, 0] == 1 and result.segment_map[30, 0] == 2 and result.segment_map[12,
                                                                                                   20] == 3
    assert result.segments_info[2]['score'] == pytest.approx(0.9)
    confident = model(color_image(), score_thr=0.85)
    assert [s['class_name'] for s in confident.segments_info] == ['cat']
    assert np.unique(confident.segment_map).tolist() == [0, 1]


def test_main__writes_results(tmp_path, capsys):
    write_color_model(tmp_path / 'model.onnx')
    Image.fromarray(color_image()).save(tmp_path / 'scene.png')
    (tmp_path / 'broken.jpg').write_text('no image')
    files = [str(tmp_path / name) for name in ('broken.jpg', 'scene.png')]
    assert main([*files, '--out-dir', str(tmp_path / 'out'), '--model', str(tmp_path / 'model.onnx')]) == 1
    assert 'broken.jpg' in capsys.readouterr().err
    content = json.loads((tmp_path / 'out' / 'scene.json').read_text())
    ids = read_segment_ids(tmp_path / 'out' / content['panoptic_png'])
    for segment in content['segments_info']:
        assert (ids == segment['id']).sum() == segment['area']
    assert Image.open(tmp_path / 'out' / 'scene_overlay.png').size == (60, 40)


def test_model__bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.onnx'):
        PanopticModel(tmp_path / 'nowhere.onnx')
    (tmp_path / 'text.onnx').write_text('no model')
    with pytest.raises(ModelFileError, match='Expected an ONNX model at .*text.onnx'):
        PanopticModel(tmp_path / 'text.onnx')
    with pytest.raises(ModelFileError, match='Expected the metadata `remax_mm`.*plain.onnx'):
        PanopticModel(write_color_model(tmp_path / 'plain.onnx', format=None))
    with pytest.raises(ModelFileError, match="Expected the format 'remax_mm panoptic 1'.*but got 'other 7'"):
        PanopticModel(write_color_model(tmp_path / 'other.onnx', format='other 7'))
    logits = PanopticModel(write_color_model(tmp_path / 'logits.onnx', outputs='logits'))
    with pytest.raises(ModelFileError, match='logits.onnx gives logits'):
        logits(color_image())


def test_run__image_larger_than_the_input(tmp_path):
    model = PanopticModel(write_color_model(tmp_path / 'model.onnx'))
    with pytest.raises(ValueError, match=r'at most \(65, 65\).*model.onnx, but got \(66, 20\)'):
        model.run(np.zeros((66, 20, 3), np.uint8), (66, 20))


def test_run__fixed_size(tmp_path):
    taken = dict(height=65, width=65, is_fixed=True)
    model = PanopticModel(write_color_model(tmp_path / 'model.onnx', input=taken))
    with pytest.raises(ValueError, match=r'of \(65, 65\) .*fixed input of .*model.onnx, but got \(64, 65\)'):
        model.run(np.zeros((64, 65, 3), np.uint8), (64, 65))


def test_call__nan(tmp_path):
    model = PanopticModel(write_color_model(tmp_path / 'model.onnx', class_scores=(0.9, float('nan'), 0.7)))
    Image.fromarray(color_image()).save(tmp_path / 'scene.png')
    with pytest.raises(ValueError, match='finite predictions.*scene.png'):
        model(tmp_path / 'scene.png')


def test_model__without_onnxruntime(tmp_path, monkeypatch):
    path = write_color_model(tmp_path / 'model.onnx')
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ImportError, match='extra `onnx`'):
        PanopticModel(path)


def test_program__needs_neither_torch_nor_remax_mm(tmp_path):
    write_color_model(tmp_path / 'model.onnx')
    Image.fromarray(color_image()).save(tmp_path / 'scene.png')
    program = f"""
import sys
for name in ('torch', 'remax_mm', 'mmdet', 'mmcv', 'mmengine', 'cv2', 'onnx', 'scipy'):
    sys.modules[name] = None
sys.path.insert(0, {str(tmp_path)!r})
import remax_runtime
sys.exit(remax_runtime.main(['scene.png']))
"""
    (tmp_path / 'remax_runtime.py').write_bytes(open(remax_runtime.__file__, 'rb').read())
    done = subprocess.run([sys.executable, '-c', program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'scene.png: 3 segments' in done.stdout
    assert (tmp_path / 'out' / 'scene_panoptic.png').is_file()
