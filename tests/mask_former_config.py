"""mmdet's mask transformers, plain or relaxed, small enough for a unit test, and their inputs."""
import copy
from typing import Any, Dict, List, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

NUM_THINGS, NUM_STUFF = 3, 2
NUM_QUERIES, CHANNELS, SIDE = 6, 16, 64
FAMILIES = ('Mask2Former', 'MaskFormer')

_ATTENTION = dict(embed_dims=CHANNELS, num_heads=2, dropout=0.0, batch_first=True)
_FFN = dict(embed_dims=CHANNELS, feedforward_channels=24)
_POSITION = dict(num_feats=CHANNELS // 2, normalize=True)
_NORM = dict(type='GN', num_groups=4)


def head_config(family: str,
                relaxed: bool = False,
                num_things: int = NUM_THINGS,
                num_stuff: int = NUM_STUFF,
                num_layers: int = 3,
                dropout: float = 0.0,
                **options: Any) -> ConfigDict:
    """Config of mmdet's head, or of our relaxed head.

    Args:
        family: one of ``FAMILIES``.
        relaxed: with ReMask and ReClass.
        num_layers: layers of the transformer decoder.
        dropout: dropout rate of the decoder's attention layers.
        options: further arguments of the head.
    """
    attention = dict(_ATTENTION, dropout=dropout)
    num_classes = num_things + num_stuff
    head = dict(
        type=f'{family}Head',
        in_channels=[4, 8, 16, 32],
        feat_channels=CHANNELS,
        out_channels=CHANNELS,
        num_things_classes=num_things,
        num_stuff_classes=num_stuff,
        num_queries=NUM_QUERIES,
        positional_encoding=_POSITION,
        transformer_decoder=dict(
            num_layers=num_layers,
            return_intermediate=True,
            layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=_FFN)),
        loss_cls=dict(type='CrossEntropyLoss', loss_weight=2.0, class_weight=[1.0] * num_classes + [0.1]),
        loss_dice=dict(
            type='DiceLoss', use_sigmoid=True, activate=True, naive_dice=True, eps=1.0, loss_weight=5.0))
    if family == 'Mask2Former':
        encoder = dict(self_attn_cfg=dict(num_levels=3, num_points=2, **_ATTENTION), ffn_cfg=_FFN)
        head.update(
            strides=[4, 8, 16, 32],
            num_transformer_feat_level=3,
            pixel_decoder=dict(
                type='MSDeformAttnPixelDecoder',
                num_outs=3,
                norm_cfg=_NORM,
                encoder=dict(num_layers=1, layer_cfg=encoder),
                positional_encoding=_POSITION),
            loss_mask=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=5.0))
    else:
        encoder = dict(self_attn_cfg=_ATTENTION, ffn_cfg=_FFN)
        head.update(
            pixel_decoder=dict(
                type='TransformerEncoderPixelDecoder',
                norm_cfg=_NORM,
                encoder=dict(num_layers=1, layer_cfg=encoder),
                positional_encoding=_POSITION),
            loss_mask=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=20.0))
    if relaxed:
        semantic_head = dict(
            type='StageSemanticHead',
            in_channels=CHANNELS,
            num_classes=num_classes + (num_stuff == 0),
            aspp_channels=8,
            norm_cfg=_NORM)
        head['type'] = f'ReMaX{family}Head'
        head['loss_cls']['type'] = 'SoftTargetCrossEntropyLoss'
        head.update(
            remask=dict(type='ReMask', semantic_head=semantic_head),
            loss_sem=dict(type='CrossEntropyLoss', avg_non_ignore=True),
            reclass=dict(type='ReClass', smoothing=0.1))
    head.update(options)
    return ConfigDict(copy.deepcopy(head))


def detector_config(family: str, relaxed: bool = False, **options: Any) -> ConfigDict:
    """Config of mmdet's detector with a narrow ResNet-18; for the arguments see :func:`head_config`."""
    head = head_config(family, relaxed, **options)
    costs = [
        dict(type='ClassificationCost', weight=2.0),
        dict(type='CrossEntropyLossCost', weight=5.0, use_sigmoid=True) if family == 'Mask2Former' else dict(
            type='FocalLossCost', weight=20.0, binary_input=True),
        dict(type='DiceCost', weight=5.0, pred_act=True, eps=1.0)
    ]
    fusion = {key: head[key] for key in ('num_things_classes', 'num_stuff_classes')}
    return ConfigDict(
        type=family,
        data_preprocessor=dict(type='MaskFormerDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3),
        backbone=dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, norm_eval=False),
        panoptic_head=head,
        panoptic_fusion_head=dict(type='MaskFormerFusionHead', **fusion),
        train_cfg=dict(
            num_points=40,
            assigner=dict(type='HungarianAssigner', match_costs=costs),
            sampler=dict(type='MaskPseudoSampler')),
        # With the usual thresholds, the panoptic map of an untrained model is void everywhere.
        test_cfg=dict(
            panoptic_on=head['num_stuff_classes'] > 0,
            instance_on=True,
            max_per_image=5,
            object_mask_thr=0.0,
            iou_thr=0.1))


def drawn_batch(num_images: int = 2, void: bool = True) -> dict:
    """A batch of a data loader. Each image has two things, two stuff segments and optionally some void."""
    samples: List[DetDataSample] = []
    for index in range(num_images):
        segment_map = torch.ones(1, SIDE, SIDE, dtype=torch.uint8)  # stuff above, stuff below
        segment_map[:, 40 - 4 * index:] = 2
        segment_map[:, 10:34, 4:30] = 3
        segment_map[:, 20:50, 36 + 3 * index:60] = 4
        if void:
            segment_map[:, :6, :20] = 0
        sample = DetDataSample(
            metainfo=dict(img_path=f'{index}.jpg', img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE)))
        sample.gt_panoptic_seg = PixelData(segment_map=segment_map)
        sample.gt_segments = InstanceData(
            labels=torch.tensor([3, 4, 0, 2]), is_thing=torch.tensor([False, False, True, True]))
        samples.append(sample)
    generator = torch.Generator().manual_seed(5)
    inputs = [torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8, generator=generator) for _ in samples]
    return dict(inputs=inputs, data_samples=samples)


def mmdet_samples(batch: dict, panoptic: bool = False) -> dict:
    """The batch with samples of mmdet's ``PackDetInputs``; with a semantic map if ``panoptic``."""
    for sample in batch['data_samples']:
        index, table = sample.gt_panoptic_seg.segment_map[0], sample.gt_segments
        things = [row for row in range(len(table)) if table.is_thing[row]]
        masks = np.stack([(index == row + 1).numpy().astype(np.uint8) for row in things])
        sample.gt_instances = InstanceData(labels=table.labels[things], masks=BitmapMasks(masks, SIDE, SIDE))
        if panoptic:
            labels = F.pad(table.labels, (1, 0), value=255)
            sample.gt_sem_seg = PixelData(sem_seg=labels[index.long()][None])
        del sample.gt_panoptic_seg, sample.gt_segments
    return batch


def small_model(family: str, relaxed: bool = True, **options: Any) -> nn.Module:
    """The detector of :func:`detector_config` in training mode, without dropout unless ``options`` set it."""
    model = MODELS.build(detector_config(family, relaxed, **options))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = options.get('dropout', 0.0)
    return model.train()


def prepare(model: nn.Module) -> Tuple[List[Tensor], SampleList]:
    """Backbone features and samples of a training step on :func:`drawn_batch`."""
    data = model.data_preprocessor(drawn_batch(), training=True)
    return model.extract_feat(data['inputs']), data['data_samples']


def training_losses(model: nn.Module) -> Dict[str, Tensor]:
    """Losses of :func:`drawn_batch`, with the same random points at every call."""
    data = model.data_preprocessor(drawn_batch(), training=True)
    torch.manual_seed(3)
    return model(**data, mode='loss')
