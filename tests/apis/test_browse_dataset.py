import json

import mmcv
import numpy as np
import pytest

from remax_mm.apis import load_config
from remax_mm.apis.browse_dataset import browse_dataset
from remax_mm.datasets import write_mini_panoptic
from remax_mm.panoptic_format import write_segment_ids
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


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('size', [65, 200])
def test_browse_dataset__images_of_another_size_than_the_crop(tmp_path, split, size):
    """The crop of the config is 129: input and ground truth have this size, enlarged 3 times."""
    write_mini_panoptic(tmp_path / 'data', 1, 1, size)
    config = load_config(MINI, {f'{split}_dataloader.dataset.data_root': str(tmp_path / 'data')})
    browse_dataset(config, split, tmp_path / 'out')
    picture, = (tmp_path / 'out').iterdir()
    drawn = mmcv.imread(str(picture))
    assert drawn.shape[1] == 2 * 387 + 4
    # The panels show the same scene: their edges are at the same places.
    image, annotated = drawn[-387:, :387].astype(int), drawn[-387:, -387:].astype(int)
    assert np.corrcoef(image.ravel(), annotated.ravel())[0, 1] > 0.5


def test_browse_dataset__annotation_is_resized_with_its_image(tmp_path):
    """A photo of 60 x 80 pixels whose right half is a thing, at the test size 97 x 129."""
    write_mini_panoptic(tmp_path, 1, 1, 64)
    photo = np.zeros((60, 80, 3), np.uint8)
    photo[:, 40:] = 255
    mmcv.imwrite(photo, str(tmp_path / 'images' / 'val' / '000000000001.jpg'))
    write_segment_ids(tmp_path / 'annotations' / 'panoptic_val' / '000000000001.png',
                      photo[..., 0].astype(int) // 255 + 1)
    path = tmp_path / 'annotations' / 'panoptic_val.json'
    content = json.loads(path.read_text())
    content['images'][0].update(height=60, width=80)
    ids = [category['id'] for category in content['categories'] if not category['isthing']]
    content['annotations'][0]['segments_info'] = [
        dict(id=number, category_id=ids[number], iscrowd=0) for number in (1, 2)
    ]
    path.write_text(json.dumps(content))
    config = load_config(MINI, {'val_dataloader.dataset.data_root': str(tmp_path)})
    browse_dataset(config, 'val', tmp_path / 'out')
    picture, = (tmp_path / 'out').iterdir()
    annotated = mmcv.imread(str(picture))[-97 * 3:, -129 * 3:]
    # The border between the segments is where the photo becomes white: in the middle, at 64.5 * 3 pixels.
    border = (annotated[20:260] == 255).all((0, 2)).nonzero()[0]
    assert len(border) == 1 and abs(border[0] - 193) <= 2
