"""A detector of one convolution, its dataset of two images and its config: a training takes a second."""
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData

from remax_mm.panoptic_format import write_segment_ids
from remax_mm.visualization import PanopticVisualizer

REPOSITORY = Path(__file__).resolve().parents[2]

# A process of its own that runs a script by `run_script`.
RUN_SCRIPT = [
    sys.executable, '-c', 'import sys; from brightness import run_script; run_script(*sys.argv[1:])'
]
RUN_SCRIPT_ENVIRONMENT = dict(os.environ, PYTHONPATH=f'{REPOSITORY}:{REPOSITORY}/tests/reliability')

CONFIG = """
_base_ = '{repository}/configs/_base_/default_runtime.py'
model = dict(type='Brightness')
metainfo = dict(classes=('cat', 'sky'), thing_classes=('cat', ), stuff_classes=('sky', ),
                palette=[(200, 0, 0), (0, 0, 200)])
dataset = dict(type='CocoPanopticMapDataset', data_root='{root}', ann_file='panoptic.json', metainfo=metainfo,
               data_prefix=dict(img='images', seg='panoptic'), serialize_data=False,
               pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadPanopticMap'),
                         dict(type='PackPanopticInputs')])
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler'), dataset=dataset)
val_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                      dataset=dict(dataset, test_mode=True))
test_dataloader = val_dataloader
val_evaluator = dict(type='PanopticQualityMetric')
test_evaluator = val_evaluator
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=0.01))
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))
"""


@MODELS.register_module()
class Brightness(BaseModel):
    """Dark pixels are a thing (label 0), bright ones are stuff (label 1)."""

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__(data_preprocessor=dict(type='mmdet.DetDataPreprocessor'), init_cfg=init_cfg)
        self.conv = torch.nn.Conv2d(3, 1, 1)

    def forward(self, inputs: torch.Tensor, data_samples: Any = None, mode: str = 'tensor') -> Any:
        if mode == 'loss':
            return dict(loss_mean=self.conv(inputs.float() / 255).square().mean())
        for sample, image in zip(data_samples, inputs.float().mean(1)):
            segments = [
                dict(id=1000, label=0, is_thing=True, score=0.9),
                dict(id=1, label=1, is_thing=False, score=0.4)
            ]
            sample.pred_panoptic_seg = PixelData(
                sem_seg=torch.where(image > 128, 1, 1000).int()[None], metainfo=dict(segments_info=segments))
        return data_samples


def write_data(root: Path) -> None:
    """Two images, dark on the left and bright on the right, and the config `tiny.py`."""
    annotations = []
    for index in (1, 2):
        image = np.full((20, 30, 3), 250, np.uint8)
        image[:, :10 * index] = 10
        mmcv.imwrite(image, str(root / 'images' / f'photo{index}.png'))
        write_segment_ids(root / 'panoptic' / f'photo{index}.png', np.where(image[..., 0] > 128, 7, 9))
        segments = [dict(id=9, category_id=5, iscrowd=0), dict(id=7, category_id=3, iscrowd=0)]
        annotations.append(dict(image_id=index, file_name=f'photo{index}.png', segments_info=segments))
    images = [dict(id=index, file_name=f'photo{index}.png', height=20, width=30) for index in (1, 2)]
    categories = [dict(id=5, name='cat', isthing=1), dict(id=3, name='sky', isthing=0)]
    (root / 'panoptic.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    (root / 'tiny.py').write_text(CONFIG.format(repository=REPOSITORY, root=root))


def run_script(script: str, *arguments: object) -> None:
    """Run a script of this repository in this process."""
    # Runs of the same second have the same name, and would share these.
    for shared in (MMLogger, MessageHub, PanopticVisualizer):
        shared._instance_dict.clear()
    path = REPOSITORY / script
    argv, sys.argv = sys.argv, [script, *map(str, arguments)]
    sys.path.insert(0, str(path.parent))
    try:
        with DefaultScope.overwrite_default_scope('mmdet'):
            runpy.run_path(str(path), run_name='__main__')
    finally:
        sys.argv = argv
        sys.path.remove(str(path.parent))
