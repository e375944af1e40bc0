"""Ground truth of a batch at mask stride, built on the model's device from one index map per image."""
from typing import NamedTuple

from torch import Tensor

VOID_SEGMENT = 0
"""Index of void (unlabeled, crowd and padded) pixels in a segment map; segments count from 1."""


class PanopticTargets(NamedTuple):
    """What the losses are held against.

    Attributes:
        masks: (B, M, h, w) float in {0, 1}, all zero where padded.
        labels: (B, M) int64 in [0, K), K where padded.
        void: (B, h, w) bool, pixels that no loss may look at.
        sem_seg: (B, h, w) int64 in [0, K), K where void.
    """
    masks: Tensor
    labels: Tensor
    void: Tensor
    sem_seg: Tensor
