"""The commands of docs/own_data.md run as they are, with fewer iterations and images."""
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import takewhile

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / 'docs' / 'own_data.md').read_text()
BLOCKS = re.findall(r'```bash\n(.*?)```', PAGE, re.DOTALL)
# What a test changes: fewer images and iterations, no download, no processes.
PRELUDE = """set -e
python() {
  case "$1" in
    *make_own_example.py) set -- "$@" --train 9 --val 2 ;;
    *train.py) [[ "$*" == *--cfg-options* ]] || set -- "$@" --cfg-options
      set -- "$@" train_cfg.max_iters=1 train_cfg.val_interval=1 model.backbone.init_cfg=None \\
        train_dataloader.{batch_size=2,num_workers=0,persistent_workers=False} \\
        val_dataloader.{num_workers=0,persistent_workers=False} ;;
    *test.py) set -- "$@" --cfg-options test_dataloader.{num_workers=0,persistent_workers=False} ;;
  esac
  %s "$@"
}
"""


@pytest.mark.parametrize(
    'config', sorted((REPOSITORY / 'configs' / 'own_data').glob('*.py')), ids=lambda p: p.stem)
def test_config__counts_the_classes_of_the_json(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_data = Config.fromfile(config)  # can be printed
    path = tmp_path / without_data.data_root / without_data.train_dataloader.dataset.ann_file
    path.parent.mkdir(parents=True)
    categories = [dict(id=number, name=str(number), isthing=int(number > 3)) for number in range(5)]
    path.write_text(json.dumps(dict(images=[], annotations=[], categories=categories)))
    head = Config.fromfile(config).model.panoptic_head
    assert (head.num_things_classes, head.num_stuff_classes) == (1, 4)
    path.write_text(json.dumps(dict(images=[], annotations=[], categories=categories[:1] * 2)))
    with pytest.raises(ValueError, match='panoptic_train.json'):
        Config.fromfile(config)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with tools, configs and files of annotation tools, in which all blocks have run."""
    folder = tmp_path_factory.mktemp('own_data')
    for name in ('tools', 'configs', 'demo'):
        (folder / name).symlink_to(REPOSITORY / name)
    shutil.copytree(REPOSITORY / 'tests' / 'data' / 'annotation_tools', folder / 'data' / 'yard')
    (folder / 'data' / 'yard' / 'photos').mkdir()
    cv2.imwrite(str(folder / 'data' / 'yard' / 'photos' / 'yard.jpg'), np.zeros((30, 40, 3), np.uint8))
    classes = [
        dict(name=name, isthing=int(name in ('hen', 'egg'))) for name in ('hen', 'egg', 'sky', 'grass')
    ]
    (folder / 'data' / 'yard' / 'classes.json').write_text(json.dumps(classes))
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get('PYTHONPATH')]))
    for block in BLOCKS:
        run = subprocess.run(['bash', '-c', PRELUDE % shlex.quote(sys.executable) + block],
                             cwd=folder,
                             env=dict(os.environ, PYTHONPATH=path),
                             capture_output=True,
                             text=True)
        assert run.returncode == 0, f'{block}\n{run.stdout[-2000:]}\n{run.stderr[-3000:]}'
    return folder


@pytest.mark.slow
def test_page__results_are_where_it_says(folder):
    table = takewhile(lambda line: line.startswith('|'),
                      PAGE.split('| folder | content |\n|---|---|\n')[1].splitlines())
    names = [re.search('`(.*?)`', line).group(1) for line in table]
    assert names == ['data/own', 'work_dirs/check_{train,val}.json', 'work_dirs/own', 'outputs/own']
    for split in ('train', 'val'):
        assert json.loads((folder / 'data' / 'own' / f'panoptic_{split}.json').read_text())['images']
        assert (folder / 'work_dirs' / f'check_{split}.json').is_file()
        assert len(list((folder / 'work_dirs' / f'browse_{split}').iterdir())) == dict(train=9, val=2)[split]
    assert {path.suffix for path in (folder / 'work_dirs' / 'own').iterdir()} >= {'.pth', '.py'}
    assert len(list((folder / 'outputs' / 'own').iterdir())) == 3 * 2
    assert len(list((folder / 'work_dirs' / 'own-641').glob('*/pictures/*.jpg'))) == 2
    assert {path.name
            for path in (folder / 'work_dirs' / 'own-641' / 'curves').iterdir()
            } == {'curves.png', 'classes.png'}
    for name in ('labelme', 'via', 'coco', 'masks'):
        content = json.loads((folder / 'data' / 'yard' / f'{name}_train.json').read_text())
        assert {category['name'] for category in content['categories']} == {'hen', 'egg', 'sky', 'grass'}
