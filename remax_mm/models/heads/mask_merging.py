"""Binary masks of slots, and pasting them onto an empty map, one after the other.

Masks are numbered from 0. Both classes have the same methods: masks are added in strips of rows, then the
host asks how many pixels of a mask are still free and pastes it, and the map is made in the end.
"""
from typing import Callable, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from .mask_rows import MaskRows

PAIRS_ABOVE = 1 / 3 + 1e-3
"""At most two probabilities of a softmax exceed a threshold above this. The margin is for rounding."""


def collect_masks(rows: MaskRows, slots: Tensor, pixel_threshold: float,
                  add_rows: Callable[[slice, Tensor], None]) -> Tuple[Tensor, Tensor]:
    """Binary masks of some slots, in strips of rows.

    Args:
        rows: mask logits of all slots, which compete in the softmax.
        slots: (n,) indices.
        pixel_threshold: softmax over slots that the pixels of a mask must exceed.
        add_rows: gets each strip and its rows of the masks, (n, rows, W) bool.

    Returns:
        Area of each mask (n,) int64, and the sum of its probability over its pixels (n,) float64. The sum is
        exact for thresholds that fusion uses, so that it does not depend on the strips.
    """
    areas = torch.zeros(len(slots), dtype=torch.int64, device=rows.device)
    sums = torch.zeros(len(slots), dtype=torch.float64, device=rows.device)
    for strip, logits in rows:
        probability = logits.softmax(dim=0).index_select(0, slots)
        own = probability > pixel_threshold
        areas += own.sum((1, 2))
        sums += (probability * own).sum((1, 2), dtype=torch.float64)
        add_rows(strip, own)
    return areas, sums


class MaskMerging:
    """Masks that share pixels in any way.

    Args:
        num_masks: n.
        size: (H, W) of the map.
        device: of the masks.
    """

    def __init__(self, num_masks: int, size: Tuple[int, int], device: torch.device) -> None:
        self._masks = torch.empty((num_masks, *size), dtype=torch.bool, device=device)
        self._map = torch.zeros(size, dtype=torch.int32, device=device)

    def add_rows(self, strip: slice, masks: Tensor) -> None:
        """Set the rows of a strip of all masks, (n, rows, W) bool."""
        self._masks[:, strip] = masks

    def to_host(self, table: Tensor) -> Tensor:
        """Copy a float64 table to the host together with what is needed there, in one transfer."""
        return table.cpu()

    def free_area(self, mask: int) -> int:
        """Number of pixels of a mask that no pasted mask covers."""
        return int((self._masks[mask] & (self._map == 0)).sum())

    def paste(self, mask: int, segment_id: int) -> None:
        """Assign the free pixels of a mask to a segment."""
        self._map[self._masks[mask] & (self._map == 0)] = segment_id

    def segment_map(self, new_ids: Sequence[int]) -> Tensor:
        """The map (H, W) int32, in which ``new_ids`` replace the ids 0 (void), 1, 2, ..."""
        return self._map.new_tensor(new_ids)[self._map.long()]


class PairMerging:
    """Masks of which at most two share a pixel.

    The number of pixels that each pair of masks shares determines how many are free: a pixel of two masks
    belongs to the one that is pasted first. The map is made in one step, from the pair of each pixel.
    """

    def __init__(self, num_masks: int, size: Tuple[int, int], device: torch.device) -> None:
        self._side = num_masks + 1  # number 0 is no mask
        # first * (n + 1) + last mask of a pixel, which are equal if there is only one
        self._pairs = torch.empty(size, dtype=torch.int32, device=device)
        self._segment_ids = np.zeros(self._side, dtype=np.int32)
        self._ranks = np.full(self._side, self._side)  # position in the order of pasting
        self._num_pasted = 0

    def add_rows(self, strip: slice, masks: Tensor) -> None:
        numbers = torch.arange(1, self._side, dtype=torch.int16, device=masks.device)[:, None, None]
        last = (masks * numbers).amax(0).int()
        first = self._side - (masks * numbers.flip(0)).amax(0).int()
        self._pairs[strip] = torch.where(last > 0, first * self._side + last, 0)

    def to_host(self, table: Tensor) -> Tensor:
        shared = torch.bincount(self._pairs.flatten(), minlength=self._side**2)
        values = torch.cat([table.flatten(), shared.double()]).cpu()
        areas = values[table.numel():].view(self._side, self._side).numpy()
        self._areas = areas + np.triu(areas, 1).T  # first <= last
        return values[:table.numel()].view(table.shape)

    def free_area(self, mask: int) -> int:
        return int(self._areas[mask + 1, self._segment_ids == 0].sum())

    def paste(self, mask: int, segment_id: int) -> None:
        self._segment_ids[mask + 1] = segment_id
        self._ranks[mask + 1] = self._num_pasted
        self._num_pasted += 1

    def segment_map(self, new_ids: Sequence[int]) -> Tensor:
        ids = np.asarray(new_ids, dtype=np.int32)[self._segment_ids]
        is_first_pasted = self._ranks[:, None] <= self._ranks
        id_of_pair = torch.from_numpy(np.where(is_first_pasted, ids[:, None], ids)).to(self._pairs.device)
        return id_of_pair.flatten().index_select(0, self._pairs.flatten()).view(self._pairs.shape)
