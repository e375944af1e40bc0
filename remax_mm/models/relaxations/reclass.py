"""ReClass: class targets include what a mask covers, in training only (ReMaX, arXiv 2306.17319, Sec. 3.2)."""
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..layers import sum_by_owner

ACTIVATIONS = ('sigmoid', 'softmax')


@torch.no_grad()
def class_coverage(mask_logits: Tensor,
                   sem_seg: Tensor,
                   num_classes: int,
                   activation: str = 'sigmoid') -> Tensor:
    r"""Fraction of each class's ground truth that a mask covers: Eq. 3 of ReMaX.

    .. math:: y_m = \sigma(m_{pan})^T S / \sum_i s_i

    Args:
        mask_logits: (B, N, h, w), un-relaxed.
        sem_seg: (B, h, w) int64 in [0, K], K for void, which belongs to no class.
        num_classes: K.
        activation: ``'sigmoid'`` of each mask, or ``'softmax'`` over the slots.

    Returns:
        (B, N, K) in [0, 1], 0 where the image has no pixel of the class. No gradient.
    """
    masks = mask_logits.sigmoid() if activation == 'sigmoid' else mask_logits.softmax(dim=1)
    pixel_class = sem_seg.flatten(1)
    covered = sum_by_owner(masks.flatten(2), pixel_class, num_classes + 1)
    area = masks.new_zeros(len(masks), num_classes + 1)
    area.scatter_add_(1, pixel_class, torch.ones_like(pixel_class, dtype=area.dtype))
    return (covered / area.clamp(min=1).unsqueeze(1))[..., :-1]


def relax_class_targets(class_targets: Tensor, coverage: Tensor, smoothing: float) -> Tensor:
    r"""Mix class targets with coverage: Eq. 4 of ReMaX.

    .. math:: \hat y = \eta y_m + (1 - \eta y_m) \odot y

    The labeled class keeps the target 1, so a row can sum to more than 1.

    Args:
        class_targets: (B, N, K + 1); the void column is not changed.
        coverage: (B, N, K) in [0, 1].
        smoothing: eta in [0, 1].
    """
    labels, void = class_targets[..., :-1], class_targets[..., -1:]
    relaxed = smoothing * coverage + (1 - smoothing * coverage) * labels
    return torch.cat([relaxed, void], dim=-1)


@MODELS.register_module()
class ReClass(nn.Module):
    """Add the classes under the mask of each slot to its class targets; identity in eval.

    Args:
        smoothing: eta of Eq. 4; 0 does not change the targets.
        activation: of the masks, see :func:`class_coverage`.

    Raises:
        ValueError: smoothing outside [0, 1], or unknown activation.
    """

    def __init__(self, smoothing: float = 0.1, activation: str = 'sigmoid') -> None:
        super().__init__()
        if not 0 <= smoothing <= 1:
            raise ValueError(f'Expected `smoothing` in [0, 1], but got {smoothing}')
        if activation not in ACTIVATIONS:
            raise ValueError(f'Expected `activation` to be one of {ACTIVATIONS}, but got {activation!r}')
        self.smoothing = smoothing
        self.activation = activation

    def forward(self, class_targets: Tensor, mask_logits: Tensor, sem_seg: Tensor) -> Tensor:
        """Class targets (B, N, K + 1) of Eq. 4.

        Args:
            class_targets: (B, N, K + 1), void last.
            mask_logits: (B, N, h, w) of the same slots, un-relaxed.
            sem_seg: (B, h, w) int64 in [0, K], K for void.
        """
        if not self.training or self.smoothing == 0:
            return class_targets
        num_classes = class_targets.shape[-1] - 1
        coverage = class_coverage(mask_logits, sem_seg, num_classes, self.activation)
        return relax_class_targets(class_targets, coverage, self.smoothing)
