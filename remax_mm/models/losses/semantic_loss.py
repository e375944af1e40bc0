"""Losses of the semantic heads: the auxiliary one of kMaX-DeepLab and those that guide ReMask."""
from typing import Tuple

import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from remax_mm.models.layers import resize_to
from remax_mm.structures import SlotTargets
from .pixel_sampling import PixelSampler, gather_pixels, mean_over_nonzero


def stride_targets(targets: SlotTargets, size: Tuple[int, int]) -> SlotTargets:
    """Take every s-th pixel of the semantic ground truth, so that it has the size of coarser logits.

    Only ``sem_seg``, ``void`` and ``inverse_area`` change. Ground truth is never interpolated.

    Raises:
        ValueError: no single stride leads from one size to the other.
    """
    height, width = targets.sem_seg.shape[-2:]
    stride = (height - 1) // max(size[0] - 1, 1)
    if stride < 1 or ((size[0] - 1) * stride + 1, (size[1] - 1) * stride + 1) != (height, width):
        raise ValueError(
            f'Expected semantic logits at one stride of the ground truth of size {(height, width)}, '
            f'that is ((x - 1) / s + 1) on both axes, but got {tuple(size)}')
    maps = {
        name: getattr(targets, name)[:, ::stride, ::stride]
        for name in ('sem_seg', 'void', 'inverse_area')
    }
    return targets._replace(**maps)


def pick_semantic_pixels(sem_logits: Tensor, targets: SlotTargets,
                         sampler: PixelSampler) -> Tuple[Tensor, Tensor]:
    """Logits (B, C, S) and labels (B, S) in [0, K] of the pixels that the sampler draws at the logits' size.

    Raises:
        ValueError: C is less than K, or the size fits no stride.
    """
    num_classes = targets.class_targets.shape[-1] - 1
    if sem_logits.shape[1] < num_classes:
        raise ValueError(f'Expected semantic logits of at least {num_classes} classes, but got '
                         f'{sem_logits.shape[1]}')
    targets = stride_targets(targets, sem_logits.shape[-2:])
    pixels = sampler(targets)
    return gather_pixels(sem_logits, pixels), gather_pixels(targets.sem_seg, pixels)


@MODELS.register_module()
class SemanticLoss(nn.Module):
    """Softmax cross entropy over classes, void pixels left out.

    Args:
        num_samples: pixels drawn of each image, anew at each call; all if there are fewer, or if 0.
        sampling_temperature: how much small segments are favored, see :func:`.sample_pixels`.
        loss_weight: factor on the mean over sampled non-void pixels.

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
    """As :class:`SemanticLoss`, after the logits are brought to the ground truth's resolution.

    For logits of a decoder stage, coarser than the masks, whose small segments the stride would skip.
    """

    def forward(self, sem_logits: Tensor, targets: SlotTargets) -> Tensor:
        """Scalar from logits (B, C, h', w'), C >= K, at any resolution."""
        return super().forward(resize_to(sem_logits, targets.sem_seg.shape[-2:]), targets)


@MODELS.register_module()
class BinarySemanticLoss(SemanticLoss):
    """Binary cross entropy of each class, summed over classes, void pixels left out.

    Unlike the softmax it fixes the absolute level of the logits, whose sigmoid Eq. 1 of ReMaX takes.
    Arguments as of :class:`SemanticLoss`.
    """

    def forward(self, sem_logits: Tensor, targets: SlotTargets) -> Tensor:
        """Scalar from logits (B, C, h', w'), C >= K, at the ground truth's resolution or a stride of it."""
        logits, labels = pick_semantic_pixels(sem_logits, targets, self.sampler)
        num_classes = targets.class_targets.shape[-1] - 1

        # One-hot over all columns of the logits; void may lie beyond the last and is masked out.
        is_class = F.one_hot(labels, max(num_classes + 1, logits.shape[1]))[..., :logits.shape[1]]
        is_class = is_class.transpose(1, 2).to(logits)  # (B, C, S)
        loss = F.binary_cross_entropy_with_logits(logits, is_class, reduction='none').sum(dim=1)  # (B, S)
        return self.loss_weight * mean_over_nonzero(loss.masked_fill(labels == num_classes, 0))
