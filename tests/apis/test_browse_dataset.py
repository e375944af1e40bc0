import mmcv
import pytest

from remax_mm.apis import load_config
from remax_mm.apis.browse_dataset import browse_dataset
from remax_mm.datasets import write_mini_panoptic
from tests.conftest import REPOSITORY

MINI = REPOSITORY / 'configs' / 'mini' / 'kmax_mnv3-s_1xb8-1k_mini-129.py'


@pytest.mark.parametrize('num_images, expected', [(1, 1), (None, 2), (9, 2)])
def test_browse_dataset__number_of_images(tmp_path, num_images, expected):
    write_mini_panoptic(tmp_path / 'data', 1, 2, 65)
    config = load_config(MINI, {'val_dataloader.dataset.data_root': str(tmp_path / 'data')})
    browse_dataset(config, 'val', tmp_path / 'out', num_images=num_images)
    pictures = sorted((tmp_path / 'out').iterdir())
    assert [path.name for path in pictures] == ['000000_000000000001.png',
                                                '000001_000000000002.png'][:expected]
    assert mmcv.imread(str(pictures[0])).ndim == 3
