"""kMaX-DeepLab's transformer decoder: k-means cross-attention (arXiv 2207.04044, Sec. 3.2).

deeplab2 model/transformer_decoder/kmax.py and model/layers/dual_path_transformer.py.
"""
from typing import List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from torch import Tensor, nn

from remax_mm.structures import MaskPrediction, StageContext, full_precision
from ..layers import (KMAX_NORM, ConvNormAct, MaskPredictor, NormConfig, attend, build_norm, sum_by_owner,
                      truncated_normal_)
from ..relaxations import build_remask


def kmeans_update(mask_logits: Tensor, pixel_value: Tensor) -> Tensor:
    """Sum of the values of each slot's pixels; a pixel belongs to the slot with the highest logit.

    The cluster-wise argmax of kMaX-DeepLab, Eq. 7. The values get a gradient, the logits do not.

    Args:
        mask_logits: (B, N, h, w).
        pixel_value: (B, C, h, w).

    Returns:
        (B, C, N) sums, at least float32.
    """
    with torch.autocast(pixel_value.device.type, enabled=False):
        owner = mask_logits.detach().flatten(2).argmax(dim=1)  # (B, h * w)
        return sum_by_owner(full_precision(pixel_value).flatten(2), owner, mask_logits.shape[1])


class SlotSelfAttention(nn.Module):
    """Multi-head self-attention among slots, with batch norms on similarities and on retrieved values."""

    def __init__(self, channels: int, num_heads: int = 8, norm_cfg: NormConfig = KMAX_NORM) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.split_sizes = (channels // 2, channels // 2, channels)
        self.qkv = ConvNormAct(
            channels, sum(self.split_sizes), dim=1, norm_cfg=norm_cfg, act=False, init=channels**-0.5)
        self.similarity_norm = build_norm(norm_cfg, num_heads)
        self.value_norm = build_norm(norm_cfg, channels, dim=1)
        self.project = ConvNormAct(channels, channels, dim=1, norm_cfg=norm_cfg, act=False, norm_init=0.0)

    def forward(self, slots: Tensor) -> Tensor:
        """(B, C, N) to (B, C, N)."""
        query, key, value = self.qkv(slots).split(self.split_sizes, dim=1)
        query = query.unflatten(1, (self.num_heads, -1))  # (B, heads, depth, N)
        key = key.unflatten(1, (self.num_heads, -1))
        value = value.unflatten(1, (self.num_heads, -1))
        return self.project(F.gelu(attend(query, key, value, self.similarity_norm, self.value_norm)))


class KMaXDecoderLayer(nn.Module):
    """One layer: predict masks, relax them with ReMask, reassign the pixels, update the cluster centers.

    Args:
        in_channels: channels of the pixel feature.
        num_classes: K, without void.
        channels: width of slots and of pixels in the layer.
        ffn_channels: hidden width of the feed-forward network.
        drop_path_rate: probability of dropping each of the three updates.
        remask: relaxes the masks of the layer in training.
        relax_assignment: whether relaxed masks also assign the pixels.
        mask_prior: see :class:`MaskPredictor`.
    """

    def __init__(self,
                 in_channels: int,
                 num_classes: int,
                 channels: int = 256,
                 ffn_channels: int = 2048,
                 embedding_channels: int = 128,
                 num_heads: int = 8,
                 drop_path_rate: float = 0.0,
                 norm_cfg: NormConfig = KMAX_NORM,
                 remask: Optional[nn.Module] = None,
                 relax_assignment: bool = True,
                 mask_prior: Optional[float] = None) -> None:
        super().__init__()
        self.relax_assignment = relax_assignment
        self.act = nn.GELU()
        self.slot_projection = ConvNormAct(channels, channels, dim=1, norm_cfg=norm_cfg)
        self.pixel_projection = ConvNormAct(in_channels, channels, norm_cfg=norm_cfg)
        self.predictor = MaskPredictor(
            channels, channels, num_classes, channels, embedding_channels, norm_cfg, mask_prior=mask_prior)
        self.remask = remask

        self.pixel_value = ConvNormAct(channels, channels, norm_cfg=norm_cfg, act=False, init=channels**-0.5)
        self.update_norm = build_norm(norm_cfg, channels, dim=1)
        self.update = ConvNormAct(channels, channels, dim=1, norm_cfg=norm_cfg, act=False, norm_init=0.0)
        self.self_attention = SlotSelfAttention(channels, num_heads, norm_cfg)
        self.ffn = nn.Sequential(
            ConvNormAct(channels, ffn_channels, dim=1, norm_cfg=norm_cfg),
            ConvNormAct(ffn_channels, channels, dim=1, norm_cfg=norm_cfg, act=False, norm_init=0.0))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self,
                slots: Tensor,
                feature: Tensor,
                sem_seg: Optional[Tensor] = None) -> Tuple[Tensor, MaskPrediction]:
        """
        Args:
            slots: (B, channels, N), the cluster centers.
            feature: (B, in_channels, h, w), not activated.
            sem_seg: (B, h', w') semantic ground truth for ReMask in training.

        Returns:
            Updated slots (B, channels, N), and the prediction before the update.
        """
        slot_space = self.slot_projection(slots)
        pixel_space = self.pixel_projection(self.act(feature))

        # Predict the current masks, and relax them in training.
        prediction = self.predictor(slot_space, slot_space, pixel_space)
        if self.remask is not None:
            prediction = self.remask(prediction, StageContext(pixel_space, feature, sem_seg))

        # The k-means update and self-attention run in parallel, from the same slots.
        assigning = prediction.supervised_mask_logits if self.relax_assignment else prediction.mask_logits
        centers = self.update_norm(kmeans_update(assigning, self.pixel_value(pixel_space)))
        slots = slots + self.drop_path(self.update(centers)) + self.drop_path(self.self_attention(slot_space))
        slots = self.act(slots)

        # Feed-forward network
        slots = self.act(slots + self.drop_path(self.ffn(slots)))
        return slots, prediction


@MODELS.register_module()
class KMaXTransformerDecoder(BaseModule):
    """Refines cluster centers on coarse to fine pixel features, then predicts the final masks.

    Args:
        in_channels: channels of the outputs of the pixel decoder, coarse to fine. The final prediction uses
            the last output, the layers use the others.
        num_classes: K, without void.
        num_slots: N.
        num_layers: number of layers at each feature but the last, coarse to fine.
        channels, ffn_channels, embedding_channels, num_heads, drop_path_rate: see :class:`KMaXDecoderLayer`.
        remask: config of :class:`ReMask`, built for each of the first ``num_relaxed`` layers. Its semantic
            head gets ``in_channels``, ``num_classes`` and ``norm_cfg`` unless its config states them.
        num_relaxed: number of layers whose masks are relaxed in training; None for two thirds of them.
        relax_assignment: whether relaxed masks also assign pixels to slots in training.
        mask_prior: initial probability that a slot claims a pixel, in all predictions; see
            :class:`MaskPredictor`.

    Raises:
        ValueError: lists of different lengths, or fewer than one or more than all layers to relax.
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 num_classes: int,
                 num_slots: int = 128,
                 num_layers: Sequence[int] = (2, 2, 2),
                 channels: int = 256,
                 ffn_channels: int = 2048,
                 embedding_channels: int = 128,
                 num_heads: int = 8,
                 drop_path_rate: float = 0.0,
                 norm_cfg: NormConfig = KMAX_NORM,
                 remask: Optional[ConfigDict] = None,
                 num_relaxed: Optional[int] = None,
                 relax_assignment: bool = True,
                 mask_prior: Optional[float] = None) -> None:
        super().__init__()
        if len(num_layers) != len(in_channels) - 1:
            raise ValueError('Expected `num_layers` to have one entry for each pixel feature but the finest, '
                             f'but got {len(num_layers)} entries for {len(in_channels)} features.')
        if remask is None and num_relaxed is not None:
            raise ValueError(f'Expected `num_relaxed` only together with `remask`, but got {num_relaxed}.')
        if num_relaxed is None:
            num_relaxed = sum(num_layers) * 2 // 3
        if remask is not None and not 0 < num_relaxed <= sum(num_layers):
            raise ValueError(f'Expected `num_relaxed` from 1 to {sum(num_layers)}, the number of decoder '
                             f'layers, but got {num_relaxed}.')
        self.num_slots = num_slots
        self.cluster_centers = nn.Parameter(torch.empty(channels, num_slots))
        truncated_normal_(self.cluster_centers, std=1.0)

        # One entry per layer: the index of the pixel feature that it looks at.
        self.feature_of_layer = [index for index, depth in enumerate(num_layers) for _ in range(depth)]
        self.layers = nn.ModuleList()
        for width in (in_channels[index] for index in self.feature_of_layer):
            stage_remask = None
            if remask is not None and len(self.layers) < num_relaxed:
                widths = dict(pixel_space=channels, pixel_decoder=width, embedding=embedding_channels)
                stage_remask = build_remask(remask, widths, num_classes, norm_cfg)
            self.layers.append(
                KMaXDecoderLayer(
                    width,
                    num_classes,
                    channels,
                    ffn_channels,
                    embedding_channels,
                    num_heads,
                    drop_path_rate,
                    norm_cfg,
                    remask=stage_remask,
                    relax_assignment=relax_assignment,
                    mask_prior=mask_prior))
        self.class_embedding = ConvNormAct(channels, channels, dim=1, norm_cfg=norm_cfg)
        self.mask_embedding = ConvNormAct(channels, channels, dim=1, norm_cfg=norm_cfg)
        self.predictor = MaskPredictor(
            in_channels[-1],
            channels,
            num_classes,
            channels,
            embedding_channels,
            norm_cfg,
            mask_prior=mask_prior)

    def forward(self, features: Sequence[Tensor], sem_seg: Optional[Tensor] = None) -> List[MaskPrediction]:
        """
        Args:
            features: (B, in_channels[i], h, w) each, coarse to fine.
            sem_seg: (B, h', w') semantic ground truth at the size of the finest feature, for ReMask in
                training.

        Returns:
            One prediction per layer, each at the resolution of its feature, then the final one.
        """
        slots = self.cluster_centers.expand(features[0].shape[0], -1, -1)
        predictions = []
        for layer, index in zip(self.layers, self.feature_of_layer):
            slots, prediction = layer(slots, features[index], sem_seg)
            predictions.append(prediction)

        final = self.predictor(self.mask_embedding(slots), self.class_embedding(slots), features[-1])
        predictions.append(final)
        return predictions
