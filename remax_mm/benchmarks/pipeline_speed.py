"""Time of the training pipeline, compared with MMDetection's.

One process does the work of a data loader worker, from files to packed tensors. Both pipelines load the same
images, resize them to the same random scales, pad, crop and flip. MMDetection's has the steps of its configs
of Mask2Former. The pipelines run in turn.
"""
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset


class PipelineSpeed(NamedTuple):
    """Images per second of MMDetection, and of ours without and with copy-paste, and ratios to MMDetection.

    Medians over the repeats; a ratio is computed within each repeat.
    """
    mmdet: float
    ours: float
    ours_copy_paste: float
    ratio: float
    ratio_copy_paste: float


def compare_pipelines(config: Config,
                      data: Path,
                      split: str,
                      num_images: int,
                      repeats: int,
                      color_policy: bool = False) -> PipelineSpeed:
    """Time three pipelines in turn over the first images of a split.

    Args:
        config: Config with a ``train_pipeline``.
        data: Folder in COCO's layout.
        split: Name of the split.
        num_images: Number of images.
        repeats: Number of passes of each pipeline.
        color_policy: Whether both sides have the color policy; without it, neither has.
    """
    steps = config.train_pipeline
    if not color_policy:
        steps = _without(steps, 'ColorPolicy')
        paste = next(step for step in steps if step.type == 'PanopticCopyPaste')
        paste.partner_pipeline = _without(paste.partner_pipeline, 'ColorPolicy')
    plain = _without(steps, 'PanopticCopyPaste')

    pipelines = [('CocoPanopticDataset', to_mmdet(plain)), ('CocoPanopticMapDataset', plain),
                 ('CocoPanopticMapDataset', steps)]
    datasets = [build_dataset(name, pipeline, data, split, num_images) for name, pipeline in pipelines]
    for dataset in datasets:
        dataset[0]
    speeds = np.array([[_images_per_second(dataset, seed) for dataset in datasets]
                       for seed in range(repeats)])
    ratios = speeds[:, 1:] / speeds[:, :1]
    return PipelineSpeed(*np.median(speeds, 0).tolist(), *np.median(ratios, 0).tolist())


def _without(steps: Sequence[ConfigDict], name: str) -> List[ConfigDict]:
    return [step for step in steps if step.type != name]


def to_mmdet(steps: Sequence[ConfigDict]) -> List[dict]:
    """The same augmentation with the steps of mmdet's configs of Mask2Former."""
    size = next(step.crop_size for step in steps if step.type == 'RandomCrop')
    of_mmdet: Dict[str, dict] = dict(
        LoadImageStrict=dict(type='LoadImageFromFile'),
        LoadPanopticMap=dict(type='LoadPanopticAnnotations', with_bbox=True, with_mask=True, with_seg=True),
        RandomPad=dict(type='Pad', size=size),
        RandomCrop=dict(type='RandomCrop', crop_size=size, recompute_bbox=True, allow_negative_crop=True),
        PackPanopticInputs=dict(type='PackDetInputs'))
    return [of_mmdet.get(step.type, step) for step in steps]


def build_dataset(name: str, pipeline: Sequence[dict], data: Path, split: str,
                  num_images: int) -> BaseDataset:
    """A dataset class on the first images of a split in COCO's layout."""
    return DATASETS.build(
        dict(
            type=name,
            data_root=str(data),
            ann_file=f'annotations/panoptic_{split}.json',
            data_prefix=dict(img=f'{split}/', seg=f'annotations/panoptic_{split}/'),
            indices=num_images,
            pipeline=pipeline))


def _images_per_second(dataset: BaseDataset, seed: int) -> float:
    np.random.seed(seed)
    start = time.perf_counter()
    for index in range(len(dataset)):
        dataset[index]
    return len(dataset) / (time.perf_counter() - start)
