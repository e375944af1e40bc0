"""Config files of a small Mask2Former on the mini dataset."""
from pathlib import Path
from typing import List

from mmengine.config import Config

from remax_mm.datasets import write_mini_panoptic
from tests.conftest import REPOSITORY
from tests.mask_former_config import detector_config


def write_mini_configs(folder: Path) -> List[Path]:
    """Write the mini dataset, and the configs ``plain.py`` and ``relaxed.py``."""
    write_mini_panoptic(folder / 'data', 4, 2, 65, 0)
    paths = []
    for relaxed in (False, True):
        config = Config.fromfile(REPOSITORY / 'configs' / 'mini' / 'mask2former_r18_1xb8-600_mini-129.py')
        config.model = detector_config('Mask2Former', relaxed, num_things=7, num_stuff=5)
        loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
        config.merge_from_dict(dict(train_dataloader=loader, val_dataloader=loader))
        for split in ('train', 'val'):
            config[f'{split}_dataloader'].dataset.data_root = str(folder / 'data')
        paths.append(folder / f'{"relaxed" if relaxed else "plain"}.py')
        config.dump(paths[-1])
    return paths
