"""Prediction of classes and masks from mask slots and pixels (MaX-DeepLab, kMaX-DeepLab)."""
import math
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remax_mm.structures import MaskPrediction, full_precision
from .conv_norm_act import (KMAX_ACT, KMAX_NORM, ActConfig, ConvNormAct, DepthwiseSeparableConv, NormConfig,
                            build_norm)


def add_void_prior(class_logits: Tensor, prior: float = 0.9) -> Tensor:
    """Shift the void logits by a constant, so that logits of 0 give void the probability ``prior``.

    ``add_bias_towards_void`` of google-research/deeplab2, model/decoder/max_deeplab.py.

    Args:
        class_logits: (B, N, K + 1), void last.
        prior: in (0, 1).

    Returns:
        (B, N, K + 1).
    """
    num_classes = class_logits.shape[-1] - 1
    shift = class_logits.new_zeros(num_classes + 1)
    shift[-1] = math.log(num_classes * prior / (1 - prior))
    return class_logits + shift


def prior_logit(probability: float) -> float:
    """Logit whose sigmoid is ``probability``, for the initial bias of arXiv 1708.02002, Sec. 3.3.

    Raises:
        ValueError: the probability is not in (0, 1).
    """
    if not 0 < probability < 1:
        raise ValueError(f'Expected a prior probability between 0 and 1, but got {probability}')
    return math.log(probability / (1 - probability))


class MaskPredictor(nn.Module):
    """Predict the class and the mask of each slot from slot embeddings and a feature map.

    Args:
        in_channels: channels of the feature map.
        slot_channels: channels of the slot embeddings.
        num_classes: K, without void.
        channels: width of the pixel head.
        embedding_channels: D, the width of the pixel embedding.
        mask_prior: initial probability that a slot claims a pixel, for masks trained with a sigmoid. With
            1 / N the gradients of false positives and false negatives balance at the start. It sets the one
            bias that all mask logits share, which training otherwise moves by at most the learning rate per
            step. Losses with a softmax over slots do not depend on it. None keeps the bias 0 of deeplab2.

    Raises:
        ValueError: the prior is not in (0, 1).
    """

    def __init__(self,
                 in_channels: int,
                 slot_channels: int,
                 num_classes: int,
                 channels: int = 256,
                 embedding_channels: int = 128,
                 norm_cfg: NormConfig = KMAX_NORM,
                 act_cfg: ActConfig = KMAX_ACT,
                 mask_prior: Optional[float] = None) -> None:
        super().__init__()
        self.pixel_head = DepthwiseSeparableConv(in_channels, channels, norm_cfg, act_cfg)
        self.pixel_embedding = ConvNormAct(
            channels, embedding_channels, bias=True, norm_cfg=norm_cfg, act=False, init=0.01)
        self.mask_kernel = ConvNormAct(slot_channels, embedding_channels, dim=1, norm_cfg=norm_cfg, act=False)
        self.class_head = ConvNormAct(
            slot_channels, num_classes + 1, dim=1, bias=True, norm_cfg=None, act=False, init=0.01)
        self.mask_norm = build_norm(norm_cfg, 1, init=0.1)
        if mask_prior is not None:
            nn.init.constant_(self.mask_norm.get_parameter('bias'), prior_logit(mask_prior))

    def forward(self, mask_embedding: Tensor, class_embedding: Tensor, feature: Tensor) -> MaskPrediction:
        """Predict class logits and mask logits.

        Args:
            mask_embedding: (B, slot_channels, N), embeddings of the slots for their masks.
            class_embedding: (B, slot_channels, N), embeddings of the slots for their classes.
            feature: (B, in_channels, h, w).
        """
        # Classes
        class_logits = add_void_prior(self.class_head(class_embedding).transpose(1, 2))

        # Masks: the product of the slot's kernel and the pixel embeddings, which have length 1.
        pixel_feature = F.normalize(self.pixel_embedding(self.pixel_head(feature)), dim=1)
        kernel = self.mask_kernel(mask_embedding)

        # One scale and one offset for all slots and pixels. Softmax and argmax of the logits need float32.
        with torch.autocast(feature.device.type, enabled=False):
            pixel_feature = full_precision(pixel_feature)
            product = full_precision(kernel).transpose(1, 2) @ pixel_feature.flatten(2)  # (B, N, h * w)
            mask_logits = self.mask_norm(product.unsqueeze(1)).squeeze(1)
        mask_logits = mask_logits.unflatten(2, feature.shape[-2:])
        return MaskPrediction(full_precision(class_logits), mask_logits, pixel_feature)
