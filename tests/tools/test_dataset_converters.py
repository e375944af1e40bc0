"""The command lines of the dataset converters; tests/datasets/converters has what they compute."""
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.datasets.original_layouts import (CONVERTERS, USER_VOID, run_converter, write_ade20k,
                                             write_cityscapes, write_user_masks)


@pytest.mark.slow
def test_cityscapes_panoptic__both_splits_in_processes(tmp_path):
    write_cityscapes(tmp_path, contents=['mixed', 'things', 'crowd'])
    command = [
        sys.executable, CONVERTERS / 'cityscapes_panoptic.py', tmp_path, '--processes', '2', '--out',
        tmp_path / 'out'
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('3 images; 0 of their PNGs') == 2 and '3 crowd' in done.stdout
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        f'cityscapes_panoptic_{split}{ending}' for split in ('train', 'val') for ending in ('', '.json')
    ]
    assert not list((tmp_path / 'gtFine').glob('cityscapes_panoptic*'))


def test_cityscapes_panoptic__train_ids_and_overwrite(tmp_path, capsys):
    write_cityscapes(tmp_path, ['val'], ['mixed'])
    run_converter('cityscapes_panoptic', tmp_path, '--splits', 'val', '--use-train-id')
    path = tmp_path / 'gtFine' / 'cityscapes_panoptic_val_trainId.json'
    assert f'Wrote {path}' in capsys.readouterr().out
    written = path.read_text()
    path.write_text('{}')
    with pytest.raises(SystemExit, match=f'^error: .*{path}.*--overwrite'):
        run_converter('cityscapes_panoptic', tmp_path, '--splits', 'val', '--use-train-id')
    run_converter('cityscapes_panoptic', tmp_path, '--splits', 'val', '--use-train-id', '--overwrite')
    assert path.read_text() == written


def test_ade20k_panoptic__both_splits(tmp_path, capsys):
    write_ade20k(tmp_path, contents=['mixed', 'stuff'])
    run_converter('ade20k_panoptic', tmp_path, '--out', tmp_path / 'out')
    assert capsys.readouterr().out.count('2 images; 0 of their PNGs') == 2
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        f'ade20k_panoptic_{split}{ending}' for split in ('train', 'val') for ending in ('', '.json')
    ]


@pytest.mark.parametrize('converter', ['ade20k_panoptic', 'cityscapes_panoptic'])
def test_converters__exit_with_the_missing_folder(tmp_path, converter):
    with pytest.raises(SystemExit, match=f'^error: Expected {tmp_path}'):
        run_converter(converter, tmp_path)


def test_masks_to_panoptic__names_endings_and_unused_masks(tmp_path, capsys):
    write_user_masks(tmp_path, ['train'])
    for photo in (tmp_path / 'images' / 'train').iterdir():
        photo.rename(photo.with_suffix('.jpeg'))
    unused, *_ = sorted((tmp_path / 'semantic' / 'train').iterdir())
    (tmp_path / 'images' / 'train' / f'{unused.stem}.jpeg').unlink()
    arguments = [
        '--images', tmp_path / 'images' / 'train', '--semantic', tmp_path / 'semantic' / 'train',
        '--instances', tmp_path / 'instances' / 'train', '--classes', tmp_path / 'classes.json', '--out',
        tmp_path / 'train.json', '--image-suffix', '.jpeg'
    ]
    with pytest.raises(SystemExit, match=f'^error: .*--void {USER_VOID}'):
        run_converter('masks_to_panoptic', *arguments)
    run_converter('masks_to_panoptic', *arguments, '--void', USER_VOID)
    out = capsys.readouterr().out
    assert '4 images; 0 of their PNGs' in out
    assert f'1 semantic PNGs have no photo and were left out, such as {unused}' in out
    assert len(json.loads((tmp_path / 'train.json').read_text())['images']) == 4


def test_annotations_to_panoptic__labels_that_are_void(tmp_path, capsys):
    sample = REPOSITORY / 'tests' / 'data' / 'annotation_tools' / 'labelme'
    cv2.imwrite(str(tmp_path / 'yard.jpg'), np.zeros((30, 40, 3), np.uint8))
    (tmp_path / 'classes.json').write_text('[{"name": "hen", "isthing": 1}, {"name": "grass", "isthing": 0}]')
    arguments = [
        '--format', 'labelme', '--annotations', sample, '--images', tmp_path, '--classes',
        tmp_path / 'classes.json', '--out', tmp_path / 'train.json', '--void', 'sky'
    ]
    with pytest.raises(SystemExit, match="^error: .* also 'egg', the first of them in .*yard.json"):
        run_converter('annotations_to_panoptic', *arguments)
    run_converter('annotations_to_panoptic', *arguments, 'egg')
    out = capsys.readouterr().out
    assert '3 segments: 2 things, 1 stuff, 0 crowd' in out
    assert '34.33% of the pixels are void' in out  # 400 pixels of the sky and 12 of the egg, of 1200


def test_make_mini_panoptic__writes_once_and_refuses_other_settings(tmp_path, capsys):

    def run(*arguments):
        run_converter('make_mini_panoptic', tmp_path / 'mini', '--train', 2, '--val', 1, '--size', 65,
                      *arguments)
        return capsys.readouterr().out

    assert 'Wrote 2 training and 1 validation images of 65 x 65' in run()
    assert len(list(tmp_path.rglob('*.jpg'))) == len(list(tmp_path.rglob('*.png'))) == 3
    assert 'nothing to do' in run()
    assert 'Wrote 2 training, 1 validation and 2 test images' in run('--test', 2)
    with pytest.raises(SystemExit, match=f"^error: Expected .*{tmp_path / 'mini'}"):
        run('--seed', '1')
