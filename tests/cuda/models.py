"""A small model with each of the heads, and a training step of it."""
from typing import Dict, NamedTuple, Optional

import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from tests import mask_former_config, tiny_model
from tests.conftest import REPOSITORY

MMDET_HEADS = ('Mask2Former', 'MaskFormer')
"""Relaxed children of mmdet's heads."""
HEADS = ('kMaX-DeepLab', 'ReMaX', 'MaX-DeepLab', *MMDET_HEADS)


class Step(NamedTuple):
    """Forward and backward pass of one batch.

    Attributes:
        losses: scalars.
        gradients: of the sum of the losses, by parameter.
        statistics: running means and variances of the batch norms afterwards.
    """
    losses: Dict[str, Tensor]
    gradients: Dict[str, Tensor]
    statistics: Dict[str, Tensor]


def build_model(head: str) -> nn.Module:
    """A model in training mode. Its losses use all pixels; only those of Mask2Former draw points."""
    torch.manual_seed(0)
    model = MODELS.build(_config(head)).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def _config(head: str) -> ConfigDict:
    if head in MMDET_HEADS:
        config = mask_former_config.detector_config(head, relaxed=True)
        # All points are drawn evenly: the choice of the most uncertain ones may depend on rounding.
        config.train_cfg.update(oversample_ratio=1.0, importance_sample_ratio=0.0)
        return config
    if head == 'MaX-DeepLab':
        path = REPOSITORY / 'configs' / 'mini' / 'max-deeplab-s_1xb8-1k_mini-129.py'
        config = Config.fromfile(path).model
        config.data_preprocessor.pad_size = (65, 65)
        config.backbone.num_slots = 8
        return config
    config = ConfigDict(tiny_model.detector_config(relaxed=head == 'ReMaX'))
    for loss in ('loss_insdis', 'loss_sem'):
        config.panoptic_head.criterion[loss].num_samples = 0
    return config


def training_batch(model: nn.Module, num_images: int = 2) -> dict:
    """Images with two things, two stuff segments and some void, as a data loader yields them."""
    batch = mask_former_config.drawn_batch(num_images)
    for sample in batch['data_samples']:
        segments = sample.gt_segments
        segments.labels[~segments.is_thing] += model.num_things_classes - mask_former_config.NUM_THINGS
    return batch


def training_step(model: nn.Module,
                  num_images: int = 2,
                  wrapper: Optional[nn.Module] = None,
                  autocast: Optional[torch.dtype] = None) -> Step:
    """A step from gradients of zero, in the precision of the model's parameters.

    Args:
        wrapper: a ``DistributedDataParallel`` of the model, which is called instead.
        autocast: the type of mixed precision; None for none.
    """
    model.zero_grad()
    parameter = next(model.parameters())
    data = model.data_preprocessor(training_batch(model, num_images), training=True)
    data['inputs'] = data['inputs'].to(parameter.dtype)
    torch.manual_seed(1)
    with torch.autocast(parameter.device.type, dtype=autocast, enabled=autocast is not None):
        losses = (wrapper or model)(**data, mode='loss')
    sum(losses.values()).backward()
    return Step(losses, {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
    }, {
        name: buffer.clone()
        for name, buffer in model.named_buffers() if 'running' in name
    })


def assert_all_close(found: Dict[str, Tensor], expected: Dict[str, Tensor], rtol: float, atol: float) -> None:
    """By name, on any device; ``atol`` is in units of the largest of all expected values."""
    assert found.keys() == expected.keys()
    atol *= max(value.abs().max().item() for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name],
            value,
            rtol=rtol,
            atol=atol,
            check_device=False,
            msg=lambda message, name=name: f'{name}: {message}')
