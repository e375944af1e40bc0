"""Inputs of small panoptic heads."""
from typing import List

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

IN_CHANNELS = (4, 6, 8, 10)
NUM_CLASSES, NUM_SLOTS = 5, 6


def backbone_features(height: int = 33, width: int = 65, dtype: torch.dtype = torch.float32) -> List[Tensor]:
    """Random features of two images at strides 4, 8, 16 and 32, the same ones at every call."""
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(
            2,
            channels, (height - 1) // stride + 1, (width - 1) // stride + 1,
            dtype=dtype,
            generator=generator) for channels, stride in zip(IN_CHANNELS, (4, 8, 16, 32))
    ]


def data_samples(height: int = 33, width: int = 65) -> List[DetDataSample]:
    """Two images with two things, one stuff segment and a stripe of void each."""
    samples = []
    for split in (20, 40):
        segment_map = torch.ones(1, height, width, dtype=torch.uint8)
        segment_map[..., split:] = 2
        segment_map[:, height // 2:] = 3
        segment_map[..., :4] = 0
        sample = DetDataSample()
        sample.gt_panoptic_seg = PixelData(segment_map=segment_map)
        sample.gt_segments = InstanceData(
            labels=torch.tensor([0, 2, 4]), is_thing=torch.tensor([True, True, False]))
        samples.append(sample)
    return samples


def crowded_data_samples() -> List[DetDataSample]:
    """Two images of 33x65 pixels with eight things, two more than slots; the last two are the smallest."""
    samples = data_samples()
    columns = torch.arange(1, 9).repeat_interleave(torch.tensor([12, 10, 10, 10, 9, 8, 4, 2]))
    for sample in samples:
        sample.gt_panoptic_seg = PixelData(segment_map=columns.to(torch.uint8).expand(1, 33, 65).contiguous())
        sample.gt_segments = InstanceData(labels=torch.zeros(8).long(), is_thing=torch.ones(8).bool())
    return samples


def without_dropout(module: nn.Module) -> nn.Module:
    """Switch off dropout, in place."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return module
