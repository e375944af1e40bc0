"""Masks and segments drawn as letters, for the tests of fusion."""
from typing import List

import torch
import torch.nn.functional as F
from torch import Tensor

LOGIT = 20.0
"""A logit whose softmax or sigmoid is 1, to five digits, if the others are 0."""


def drawn_masks(*rows: str) -> Tensor:
    """Mask logits (N, h, w) of slots a, b, c, ... and of a last slot, which has the pixels with a dot."""
    letters = sorted(set(''.join(rows)) - {'.'})
    owner = torch.tensor([[letters.index(pixel) if pixel != '.' else len(letters) for pixel in row]
                          for row in rows])
    return LOGIT * F.one_hot(owner, len(letters) + 1).permute(2, 0, 1).float()


def drawn_classes(*labels: int, num_classes: int = 4, void_slot: bool = True) -> Tensor:
    """Class logits (N, K + 1) of slots with these labels, and of a last slot that is void."""
    labels = torch.tensor([*labels, num_classes] if void_slot else labels)
    return LOGIT * F.one_hot(labels, num_classes + 1).float()


def draw(segment_map: Tensor) -> List[str]:
    """A segment map (h, w): segments 1, 2, 3, ... as a, b, c, ... and void as a dot."""
    return [''.join('.abcdefgh'[value] for value in row) for row in segment_map.tolist()]
