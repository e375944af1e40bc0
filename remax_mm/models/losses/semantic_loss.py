"""Losses of the semantic heads: kMaX-DeepLab's auxiliary head and the heads that ReMask uses."""
from typing import Tuple

import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from remax_mm.structures import SlotTargets
from ..layers import find_stride, resize_to
from .binary_cross_entropy import sum_binary_cross_entropy
from .pixel_sampling import PixelSampler, gather_pixels, mean_over_nonzero


def pick_semantic_pixels(sem_logits: Tensor, targets: SlotTargets,
                         sampler: PixelSampler) -> Tuple[Tensor, Tensor]:
    """Logits and labels of sampled pixels, at the resolution of the logits.

    Args:
        sem_logits: (B, C, h', w'), C >= K, at the resolution of the ground truth or at a stride of it.
        targets: ground truth; every s-th pixel is used, it is never interpolated.
        sampler: selects the pixels.

    Returns:
        Logits (B, C, S) and labels (B, S) in [0, K].

    Raises:
        ValueError: C is less than K, or the sizes fit no stride.
    """
    num_classes = targets.class_targets.shape[-1] - 1
    if sem_logits.shape[1] < num_classes:
        raise ValueError(f'Expected semantic logits of at least {num_classes} classes, but got '
                         f'{sem_logits.shape[1]}')
    stride = find_stride(targets.sem_seg.shape[-2:], sem_logits.shape[-2:])
    targets = targets._replace(
        sem_seg=targets.sem_seg[:, ::stride, ::stride],
        owner=targets.owner[:, ::stride, ::stride],
        inverse_area=targets.inverse_area[:, ::stride, ::stride])
    pixels = sampler(targets)
    return gather_pixels(sem_logits, pixels), gather_pixels(targets.sem_seg, pixels)


@MODELS.register_module()
class SemanticLoss(nn.Module):
    """Softmax cross entropy over the classes; void pixels are ignored.

    Args:
        num_samples: number of pixels sampled per image in each call; 0 uses all, as does an image with fewer.
        sampling_temperature: preference for small segments, see :func:`.sample_pixels`.
        loss_weight: factor on the mean over the sampled pixels that are not void.

    Raises:
        ValueError: negative ``num_samples``.
    """

    def __init__(self,
                 num_samples: int = 0,
                 sampling_temperature: float = 2.0,
                 loss_weight: float = 1.0) -> None:
        super().__init__()
        self.sampler = PixelSampler(num_samples, sampling_temperature)
        self.loss_weight = loss_weight

    def forward(self, sem_logits: Tensor, targets: SlotTargets) -> Tensor:
        """Scalar from logits (B, C, h', w'), C >= K, at the ground truth's resolution or a stride of it."""
        logits, labels = pick_semantic_pixels(sem_logits, targets, self.sampler)
        num_classes = targets.class_targets.shape[-1] - 1
        loss = F.cross_entropy(logits, labels, ignore_index=num_classes, reduction='none')  # (B, S)
        return self.loss_weight * mean_over_nonzero(loss)


@MODELS.register_module()
class UpsampledSemanticLoss(SemanticLoss):
    """:class:`SemanticLoss` of logits that are first resized to the resolution of the ground truth.

    For the logits of coarse decoder stages, where striding the ground truth would skip small segments.
    """

    def forward(self, sem_logits: Tensor, targets: SlotTargets) -> Tensor:
        """Scalar from logits (B, C, h', w'), C >= K, at any resolution."""
        return super().forward(resize_to(sem_logits, targets.sem_seg.shape[-2:]), targets)


@MODELS.register_module()
class BinarySemanticLoss(SemanticLoss):
    """Binary cross entropy of each class, summed over the classes; void pixels are ignored.

    Unlike the softmax, it supervises the absolute level of the logits. Eq. 1 of ReMaX uses their sigmoid.
    Arguments as in :class:`SemanticLoss`.
    """

    def forward(self, sem_logits: Tensor, targets: SlotTargets) -> Tensor:
        """Scalar from logits (B, C, h', w'), C >= K, at the ground truth's resolution or a stride of it."""
        logits, labels = pick_semantic_pixels(sem_logits, targets, self.sampler)
        num_classes = targets.class_targets.shape[-1] - 1

        # Void, label K, may have no logit; it is masked out.
        weights = logits.new_ones(logits.shape[:2])
        loss = sum_binary_cross_entropy(logits, labels.clamp(max=logits.shape[1] - 1), weights)  # (B, S)
        return self.loss_weight * mean_over_nonzero(loss.masked_fill(labels == num_classes, 0))
