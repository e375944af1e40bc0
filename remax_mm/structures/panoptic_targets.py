"""Ground truth of a batch at the resolution of the masks."""
from typing import NamedTuple

from torch import Tensor

VOID_SEGMENT = 0
"""Index of void pixels (unlabeled, crowd, padding) in a sample's segment map, where segments start at 1."""


class PanopticTargets(NamedTuple):
    """Ground-truth segments, in no relation to mask slots yet.

    Attributes:
        owner: (B, h, w) int64, the segment in [0, M) that each pixel belongs to, M for void pixels.
        labels: (B, M) int64 in [0, K), K for padding, which owns no pixel.
        area: (B, M) int64, pixels of each segment; 0 for padding.
        sem_seg: (B, h, w) int64 in [0, K), K for void pixels.
    """
    owner: Tensor
    labels: Tensor
    area: Tensor
    sem_seg: Tensor

    @property
    def void(self) -> Tensor:
        """(B, h, w) bool, pixels of no segment."""
        return self.owner == self.labels.shape[1]
