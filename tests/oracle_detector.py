"""A detector that predicts the ground truth, for tests of evaluation."""
from typing import Any, List, Optional

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import mask2bbox
from mmengine.model import BaseModel
from mmengine.structures import InstanceData, PixelData
from torch import Tensor


@MODELS.register_module(force=True)
class OracleDetector(BaseModel):
    """Predicts the annotation of its inputs, shifted to the right.

    Args:
        num_things, num_classes: Numbers of classes of the dataset, things first.
        shift: Pixels; the shift is circular.
        test_cfg: ``panoptic_on`` (True), ``instance_on`` (False), ``semantic_on`` (False).
    """

    def __init__(self,
                 num_things: int,
                 num_classes: int,
                 shift: int = 0,
                 test_cfg: Optional[dict] = None) -> None:
        super().__init__(data_preprocessor=dict(type='mmdet.DetDataPreprocessor'))
        self.num_things, self.num_classes, self.shift = num_things, num_classes, shift
        self.test_cfg = test_cfg or {}
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.calls = 0

    def forward(self, inputs: Tensor, data_samples: List[DetDataSample], mode: str = 'tensor') -> Any:
        self.calls += 1
        for sample in data_samples:
            self._predict(sample)
        return data_samples

    def _predict(self, sample: DetDataSample) -> None:
        if 'gt_annotation' in sample:
            ids, segments = sample.gt_annotation
            segments = [segment for segment in segments if not segment['iscrowd']]
            segment_map = torch.zeros(ids.shape, dtype=torch.long)
            for row, segment in enumerate(segments, start=1):
                segment_map[ids == segment['id']] = row
            segment_map = segment_map.roll(self.shift, dims=1)
            labels = torch.tensor([segment['category'] for segment in segments], dtype=torch.long)
        else:  # without an annotation, the upper half is a segment of the first thing class
            segment_map = torch.zeros(sample.ori_shape, dtype=torch.long)
            segment_map[:sample.ori_shape[0] // 2] = 1
            labels = torch.tensor([0])
        rows = torch.arange(1, len(labels) + 1)
        values = torch.cat(
            [torch.tensor([self.num_classes]), labels + 1000 * rows * (labels < self.num_things)])
        if self.test_cfg.get('panoptic_on', True):
            infos = [
                dict(id=int(v), label=int(v) % 1000, is_thing=bool(v >= 1000), score=1.) for v in values[1:]
            ]
            sample.pred_panoptic_seg = PixelData(
                sem_seg=values[segment_map][None].int(), metainfo=dict(segments_info=infos))
        if self.test_cfg.get('instance_on', False):
            things = rows[labels < self.num_things]
            masks = segment_map == things[:, None, None]
            sample.pred_instances = InstanceData(
                masks=masks, labels=labels[things - 1], scores=1 / (1 + things), bboxes=mask2bbox(masks))
        if self.test_cfg.get('semantic_on', False):
            classes = torch.cat([torch.tensor([0]), labels])
            sample.pred_sem_seg = PixelData(sem_seg=classes[segment_map][None])
