"""Models by name: every config has one, and a short name leads to the config that it stands for."""
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config

import remax_mm
from remax_mm import model_names
from remax_mm.model_names import SHORT_NAMES, find_config, list_models
from tests.config_files import PATHS
from tests.conftest import REPOSITORY


def test_list_models__all_configs_and_short_names():
    assert list_models() == sorted([*PATHS, *SHORT_NAMES])
    assert not set(PATHS) & set(SHORT_NAMES)
    assert remax_mm.list_models('max-deeplab-?') == ['max-deeplab-l', 'max-deeplab-s']
    assert all('cityscapes' in name for name in list_models('*cityscapes*'))


@pytest.mark.parametrize('name', SHORT_NAMES)
def test_find_config__short_names_start_like_their_configs(name):
    path = find_config(name)
    assert path == PATHS[SHORT_NAMES[name]]
    words = [word for word in name.split('-') if word not in ('mini', 'convnext')]
    assert all(word in path.stem for word in words)


def test_find_config__unknown_name():
    with pytest.raises(FileNotFoundError, match='a config file at remax-tt, .* did you mean remax-t or '):
        find_config('remax-tt')
    with pytest.raises(FileNotFoundError, match=r'list_models'):
        find_config('0/1')


def test_find_config__installed_package_has_them_in_its_mim_folder(tmp_path, monkeypatch):
    package = tmp_path / 'site-packages' / 'remax_mm'
    monkeypatch.setattr(model_names, 'PACKAGE', package)
    # The folder of another package must not be taken.
    (package.parent / 'configs').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='Expected the configs in'):
        list_models()
    shutil.copytree(REPOSITORY / 'configs', package / '.mim' / 'configs')
    path = find_config('remax-t')
    assert Path(package) in path.parents
    assert Config.fromfile(path).model.panoptic_head.type == 'KMaXHead'
