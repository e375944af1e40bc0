"""The command line of the dataset checker."""
import json
import runpy

import pytest

from remax_mm.datasets import write_mini_panoptic
from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / 'tools' / 'analysis_tools' / 'check_panoptic_dataset.py'
CONFIG = REPOSITORY / 'configs' / 'mini' / 'kmax_mnv3-s_1xb8-1k_mini-129.py'


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the tool on a mini dataset of four images; returns exit code and output."""
    write_mini_panoptic(tmp_path / 'mini', num_train=3, num_val=1, size=65)

    def call(*arguments):
        monkeypatch.setattr('sys.argv', [str(SCRIPT), *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            runpy.run_path(str(SCRIPT), run_name='__main__')
        said = capsys.readouterr()
        return done.value.code, said.out + said.err

    return call


def _paths(folder, split='train'):
    annotations = folder / 'mini' / 'annotations'
    return [
        '--json', annotations / f'panoptic_{split}.json', '--pngs', annotations / f'panoptic_{split}',
        '--images', folder / 'mini' / 'images' / split
    ]


@pytest.mark.parametrize('processes', [1, 2])
def test_check_panoptic_dataset__no_errors(run, tmp_path, processes):
    code, text = run(*_paths(tmp_path), '--processes', processes, '--out', tmp_path / 'report.json')
    assert code == 0 and 'No errors found.' in text
    assert '3 images, 7 things and 5 stuff classes' in text
    report = json.loads((tmp_path / 'report.json').read_text())
    annotations = json.loads((tmp_path / 'mini/annotations/panoptic_train.json').read_text())['annotations']
    counted = sum(not segment['iscrowd'] for a in annotations for segment in a['segments_info'])
    assert sum(found['segments'] for found in report['classes']) == counted
    assert report['images'] == 3 and report['findings'] == []


def test_check_panoptic_dataset__broken_image(run, tmp_path):
    broken = sorted((tmp_path / 'mini/images/train').iterdir())[1]
    broken.write_bytes(b'nothing')
    code, text = run(*_paths(tmp_path))
    assert code == 1 and 'ERROR image_broken: 1' in text and str(broken) in text


def test_check_panoptic_dataset__by_config_with_the_class_list(run, tmp_path):
    path = tmp_path / 'mini/annotations/panoptic_val.json'
    content = json.loads(path.read_text())
    content['categories'][0]['name'] = 'unknown'
    path.write_text(json.dumps(content))
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = '{CONFIG}'\n"
                      f"val_dataloader = dict(dataset=dict(data_root='{tmp_path}/mini/'))\n")
    code, text = run('--config', config, '--split', 'val')
    assert code == 1 and 'ERROR classes_differ: 2' in text and "'unknown'" in text


def test_check_panoptic_dataset__keeps_an_existing_report(run, tmp_path):
    (tmp_path / 'report.json').write_text('mine')
    code, text = run(*_paths(tmp_path), '--out', tmp_path / 'report.json')
    assert code == 2 and 'Expected --out to name a new file' in text
    assert (tmp_path / 'report.json').read_text() == 'mine'


@pytest.mark.parametrize('arguments', [[], ['--json', 'a.json'], ['--config', 'a.py', '--json', 'a.json']])
def test_check_panoptic_dataset__too_few_or_too_many_paths(run, arguments):
    code, text = run(*arguments)
    assert code == 2 and 'Expected either --config, or --json, --pngs and --images' in text
