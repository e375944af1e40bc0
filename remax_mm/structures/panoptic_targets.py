"""Ground truth of a batch at the resolution of the masks."""
from typing import NamedTuple

from torch import Tensor

VOID_SEGMENT = 0
"""Index of void pixels (unlabeled, crowd, padding) in a segment map. Segments are numbered from 1."""


class PanopticTargets(NamedTuple):
    """Ground-truth segments, in no relation to mask slots yet.

    Attributes:
        masks: (B, M, h, w) float in {0, 1}, padded with zeros.
        labels: (B, M) int64 in [0, K), padded with K.
        void: (B, h, w) bool, pixels of no segment.
        sem_seg: (B, h, w) int64 in [0, K), K for void pixels.
    """
    masks: Tensor
    labels: Tensor
    void: Tensor
    sem_seg: Tensor
